"""Images that a table lists: CSV or Parquet, a row for each."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.errors import InputError, unknown

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """How a table is read: which of its columns hold what, and which of its rows count."""

    image: str = "image"  # of paths, or in a Parquet file of the images themselves
    label: str | None = None  # None reads no labels
    head: Sequence[str] | None = None  # the columns of a CSV file without a head
    delimiter: str = ","  # of a CSV file
    where: Mapping[str, object] = field(default_factory=dict)  # only rows with these values count

    @property
    def read(self) -> list[str]:
        """The columns that are read of every row that counts."""
        return [self.image, *([] if self.label is None else [self.label])]


def list_items(path: Path, columns: TableColumns, root: Path | None = None) -> Items:
    """List the images of a table.

    Ids are the paths as they are written. Images within the table are bytes, or what Hugging Face writes for them, and
    their ids are the row numbers.

    Args:
        path: A `.parquet` file, or a CSV file of any other suffix.
        columns: How to read it.
        root: Where relative image paths start, by default the table's folder.

    Raises:
        InputError: The table, a column, a value or an image does not exist. The message names the row.
    """
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path, columns.head, columns.delimiter)
    rows = _rows_that_count(path, rows, columns)
    labels = None if columns.label is None else [_text(row[columns.label]) for _, row in rows]
    images = [row[columns.image] for _, row in rows]
    if not isinstance(images[0], str):
        return _images_within(path, images, [number for number, _ in rows], labels)
    repeated, count = Counter(images).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: the image {repeated!r} is in {count} rows; list each once")
    start = path.parent if root is None else root
    paths = [start / image for image in images]
    missing = [str(image) for image in paths if not image.is_file()]
    if missing:
        raise InputError(f"{path}: {len(missing)} of {len(paths)} images are not there; the first: {missing[0]}")
    return Items(
        ids=images, load=lambda i: decode.image(paths[i], str(paths[i])), labels=labels, content=paths.__getitem__
    )


def _rows_that_count(path: Path, rows: list[tuple[int, Row]], columns: TableColumns) -> list[tuple[int, Row]]:
    """Return the rows with the values of `where`; raise InputError if there are none, or a value is missing."""
    where = columns.where
    if not rows:
        raise InputError(f"{path} holds no rows")
    for name in (*columns.read, *where):
        if name not in rows[0][1]:
            raise InputError(f"{path}: {unknown('column', name, rows[0][1])}")
    kept = [(number, row) for number, row in rows if all(_text(row[name]) == _text(where[name]) for name in where)]
    if not kept:
        values = {name: ", ".join(sorted({_text(row[name]) for _, row in rows})[:10]) for name in where}
        listed = "; ".join(f"{name} is {texts}" for name, texts in values.items())
        raise InputError(f"{path}: no row has all the values of `where`; there {listed}")
    for number, row in kept:
        for name in columns.read:
            if row[name] is None or row[name] == "":
                raise InputError(f"{path}: row {number} has nothing in the column {name!r}")
    return kept


def _images_within(path: Path, images: list[Any], numbers: list[int], labels: list[str] | None) -> Items:
    """List images that lie in the table: bytes, or {"bytes": ..., "path": ...}."""
    encoded: list[Any] = [image.get("bytes") if isinstance(image, dict) else image for image in images]
    for number, image, data in zip(numbers, images, encoded, strict=True):
        if not isinstance(data, bytes):
            raise InputError(f"{path}: row {number} holds {type(image).__name__}: neither a path nor an image's bytes")
    ids = list(map(str, numbers))
    return Items(
        ids=ids,
        load=lambda i: decode.image(encoded[i], f"{path}, row {ids[i]}"),
        labels=labels,
        content=lambda i: path,
    )


def _csv(path: Path, head: Sequence[str] | None, delimiter: str) -> list[tuple[int, Row]]:
    """Return the rows with their line numbers."""
    rows: list[tuple[int, Row]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            names = list(head) if head is not None else next(reader, [])
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise InputError(f"{path}:{reader.line_num}: {len(cells)} cells for the columns {', '.join(names)}")
                if cells:
                    rows.append((reader.line_num, dict(zip(names, cells, strict=True))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: the table cannot be read: {reason}") from None
    return rows


def _parquet(path: Path) -> list[tuple[int, Row]]:
    """Return the rows with their numbers."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pip install 'pytest-qreliab[parquet]'") from None
    try:
        return list(enumerate(parquet.read_table(path).to_pylist()))
    except (OSError, ArrowException) as error:
        raise InputError(f"{path}: the table cannot be read: {' '.join(str(error).split())}") from None


def _text(value: object) -> str:
    """Return a cell as YAML, CSV and Parquet agree on it: true, 1 and not 1.0."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text.lower() if text.lower() in ("true", "false") else text
