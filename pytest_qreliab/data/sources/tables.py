"""Images that a table lists: CSV or Parquet, a row for each."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.errors import InputError, unknown

Row = Mapping[str, Any]


def items(
    path: Path,
    image: str,
    label: str | None,
    root: Path | None,
    columns: Sequence[str] | None,
    delimiter: str,
    where: Mapping[str, object],
) -> Items:
    """The images in the column `image`, labelled by the column `label`, of the rows that have the values of `where`.

    Paths are relative to `root`, by default the table's folder. In a Parquet file the images themselves may be in the
    column, as bytes, or as Hugging Face writes them. Raises InputError, with the row, for what is not there.
    """
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path, columns, delimiter)
    if not rows:
        raise InputError(f"{path} holds no rows")
    for name in [image, *([] if label is None else [label]), *where]:
        if name not in rows[0][1]:
            raise InputError(f"{path}: {unknown('column', name, rows[0][1])}")
    kept = [(number, row) for number, row in rows if all(_text(row[name]) == _text(where[name]) for name in where)]
    if not kept:
        there = {name: ", ".join(sorted({_text(row[name]) for _, row in rows})[:10]) for name in where}
        told = "; ".join(f"{name} is {values}" for name, values in there.items())
        raise InputError(f"{path}: no row has all the values of `where`; there {told}")
    for number, row in kept:
        for name in (image, *([] if label is None else [label])):
            if row[name] is None or row[name] == "":
                raise InputError(f"{path}: row {number} has nothing in the column {name!r}")
    labels = None if label is None else [_text(row[label]) for _, row in kept]
    if not isinstance(kept[0][1][image], str):
        return _of_bytes(path, [(number, row[image]) for number, row in kept], labels)
    ids = [row[image] for _, row in kept]
    repeated, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: the image {repeated!r} is in {count} rows; list each once")
    start = path.parent if root is None else root
    paths = [start / identity for identity in ids]
    missing = [str(found) for found in paths if not found.is_file()]
    if missing:
        raise InputError(f"{path}: {len(missing)} of {len(paths)} images are not there; the first: {missing[0]}")
    return Items(ids, lambda i: decode.image(paths[i], str(paths[i])), labels, paths.__getitem__)


def _of_bytes(path: Path, found: list[tuple[int, Any]], labels: list[str] | None) -> Items:
    """Images within the table: bytes, or {"bytes": ..., "path": ...}; ids are the row numbers."""
    content: list[Any] = [value.get("bytes") if isinstance(value, dict) else value for _, value in found]
    for (number, value), data in zip(found, content, strict=True):
        if not isinstance(data, bytes):
            raise InputError(f"{path}: row {number} holds {type(value).__name__}: neither a path nor an image's bytes")
    ids = [str(number) for number, _ in found]
    return Items(ids, lambda i: decode.image(content[i], f"{path}, row {ids[i]}"), labels, lambda i: path)


def _csv(path: Path, columns: Sequence[str] | None, delimiter: str) -> list[tuple[int, Row]]:
    """The rows with their line numbers."""
    rows: list[tuple[int, Row]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            head = list(columns) if columns is not None else next(reader, [])
            for cells in reader:
                if cells and len(cells) != len(head):
                    raise InputError(f"{path}:{reader.line_num}: {len(cells)} cells for the columns {', '.join(head)}")
                if cells:
                    rows.append((reader.line_num, dict(zip(head, cells, strict=True))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: the table cannot be read: {reason}") from None
    return rows


def _parquet(path: Path) -> list[tuple[int, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pip install 'pytest-qreliab[parquet]'") from None
    try:
        return list(enumerate(parquet.read_table(path).to_pylist()))
    except (OSError, ArrowException) as error:
        raise InputError(f"{path}: the table cannot be read: {' '.join(str(error).split())}") from None


def _text(value: object) -> str:
    """A cell as YAML, CSV and Parquet all have it: true, 1 and not 1.0."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text.lower() if text.lower() in ("true", "false") else text
