"""Images that a table lists: CSV, JSON lines or Parquet, a row for each."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_qreliab.config.text_forms import as_on_disk, composed
from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items, LeftOut
from pytest_qreliab.data.sources.suffixes import is_image
from pytest_qreliab.data.sources.table_files import Row, read
from pytest_qreliab.data.wording import counted, first_few
from pytest_qreliab.errors import InputError, unknown

_COLUMN = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """How a table is read: which of its columns hold what, and which of its rows count."""

    # The column of paths, or in Parquet of the images themselves; or a path with `{COLUMN}` in it.
    image: str = "image"
    label: str | None = None  # None reads no labels
    head: Sequence[str] | None = None  # the columns of a CSV file without a head
    delimiter: str | None = None  # of a CSV file; None stands for a tab in a .tsv file, else a comma
    where: Mapping[str, object] = field(default_factory=dict)  # only rows with these values, or one of a list, count
    skips_missing: bool = False  # rows are left out if their image is not there, which is an error otherwise
    captions: bool = False  # labels are captions: of several of an image the first counts, which is an error otherwise

    @property
    def read(self) -> list[str]:
        """The columns that are read of every row that counts."""
        return [*(_COLUMN.findall(self.image) or [self.image]), *([] if self.label is None else [self.label])]

    def image_of(self, row: Row) -> Any:
        """Return the path of a row's image, or the image itself."""
        if not _COLUMN.search(self.image):
            return row[self.image]
        return _COLUMN.sub(lambda found: _plain(row[found[1]]), self.image)


def list_items(path: Path, columns: TableColumns, root: Path | None = None) -> Items:
    """List the images of a table.

    Ids are the paths as they are written. Images within the table are bytes, or what Hugging Face writes for them, and
    their ids are the row numbers.

    Args:
        path: A file that `table_files.read` reads.
        columns: How to read it.
        root: Where relative image paths start, by default the table's folder.

    Raises:
        InputError: The table, a column, a value or an image does not exist. The message names the row.
    """
    every = read(path, columns.head, columns.delimiter)
    rows, left_out = _chosen_rows(path, every, columns)
    images = [columns.image_of(row) for _, row in rows]
    if not _are_paths(path, rows, images):
        within = _images_within(path, columns, rows, images)
        return replace(within, left_out=tuple(left_out))
    repeated, count = Counter(map(composed, images)).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: the image {repeated!r} is in {count} rows; list each once")
    start = path.parent if root is None else root
    paths = [_found(start, image) for image in images]
    missing = [position for position, image in enumerate(paths) if image is None]
    if missing:
        first = missing[0]
        if not columns.skips_missing or len(missing) == len(rows):
            raise InputError(
                f"{path}: {len(missing)} of {len(paths)} images are not there; the first: {start / images[first]} "
                f"(row {rows[first][0]}){_hint(start, images[first], columns.image)}"
            )
        absent = first_few([images[position] for position in missing])
        left_out.append(LeftOut(f"{counted(len(missing), 'row')} left out, whose image is not there: {absent}"))
    there = sorted(set(range(len(rows))) - set(missing))
    files = [image for image in paths if image is not None]
    return Items(
        ids=[composed(images[position]) for position in there],
        load=lambda i: decode.image(files[i], str(files[i])),
        labels=_labels([rows[position] for position in there], columns),
        content=files.__getitem__,
        left_out=tuple(left_out),
    )


def _chosen_rows(
    path: Path, every: list[tuple[int, Row]], columns: TableColumns
) -> tuple[list[tuple[int, Row]], list[LeftOut]]:
    """Return the rows that count, of captions one for each image, and what that leaves out."""
    rows = _rows_that_count(path, every, columns)
    left_out = []
    if unwanted := len(every) - len(rows):
        left_out.append(LeftOut(f"{counted(unwanted, 'row')} that `where` leaves out", on_request=True))
    if not columns.captions:
        return rows, left_out
    first = _first_of_each_image(rows, columns)
    if further := len(rows) - len(first):
        left_out.append(LeftOut(f"{counted(further, 'row')} of images that an earlier row has", on_request=True))
    return first, left_out


def _first_of_each_image(rows: Sequence[tuple[int, Row]], columns: TableColumns) -> list[tuple[int, Row]]:
    """Return the rows whose image, a path or bytes, is not that of an earlier row."""
    found: dict[Any, tuple[int, Row]] = {}
    for number, row in rows:
        image = columns.image_of(row)
        held = image.get("bytes") if isinstance(image, dict) else image
        found.setdefault(composed(held) if isinstance(held, str) else held, (number, row))
    return list(found.values())


def _are_paths(path: Path, rows: Sequence[tuple[int, Row]], images: list[Any]) -> bool:
    """Return whether rows hold paths, and not the images themselves; raise InputError for both."""
    texts = [isinstance(image, str) for image in images]
    if any(texts) and not all(texts):
        at = texts.index(False)
        raise InputError(f"{path}: row {rows[at][0]} holds {type(images[at]).__name__}, and other rows hold paths")
    return all(texts)


def _found(start: Path, text: str) -> Path | None:
    """Return the path of a file as it is on disk; None if it is not there. Windows writes paths with a backslash."""
    for path in (start / text, as_on_disk(start / text), start / text.replace("\\", "/")):
        if _is_file(path):
            return path
    return None


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 (the method raises OSError for a name that is too long)


def _labels(rows: Sequence[tuple[int, Row]], columns: TableColumns) -> list[str] | None:
    return None if columns.label is None else [_text(row[columns.label]) for _, row in rows]


def _rows_that_count(path: Path, rows: list[tuple[int, Row]], columns: TableColumns) -> list[tuple[int, Row]]:
    """Return the rows with the values of `where`; raise InputError if there are none, or a value is missing."""
    where = {name: _texts(value) for name, value in columns.where.items()}
    if not rows:
        raise InputError(f"{path} holds no rows")
    for name in (*columns.read, *where):
        if name not in rows[0][1]:
            raise InputError(f"{path}: {unknown('column', name, rows[0][1])}{_other_delimiter(rows[0][1])}")
    kept = [(number, row) for number, row in rows if all(_text(row[name]) in where[name] for name in where)]
    present = {name: {_text(row[name]) for _, row in rows} for name in where}
    absent = [f"{name} is never {text}" for name in where for text in sorted(where[name] - present[name])]
    if absent or not kept:
        reason = ", ".join(absent) if kept else "no row has all the values of `where`"
        listed = "; ".join(f"{name} is {', '.join(sorted(texts)[:10])}" for name, texts in present.items())
        raise InputError(f"{path}: {reason}; there {listed}")
    for number, row in kept:
        for name in columns.read:
            if row[name] in (None, "", []):
                raise InputError(f"{path}: row {number} has nothing in the column {name!r}")
    return kept


def _other_delimiter(columns: Row) -> str:
    """Return what to write for a head in which another delimiter stands than the cells were cut at."""
    (only, *more) = columns
    if not more:
        for delimiter, written in (("\t", r"\t"), (";", ";"), ("|", "|")):
            if delimiter in only:
                return f'; with delimiter: "{written}" there are the columns {", ".join(only.split(delimiter))}'
    return ""


def _hint(start: Path, image: str, column: str) -> str:
    """Return how to name the missing images, if their suffix or folder was left out."""
    suffixes = [""] if is_image(image) else [".jpg", ".jpeg", ".png", ".JPEG", ".webp"]
    folders = [""]
    if start.is_dir():
        folders += sorted(f"{entry.name}/" for entry in os.scandir(start) if entry.is_dir())
    for folder, suffix in itertools.product(folders, suffixes):
        if _is_file(start / f"{folder}{image}{suffix}"):
            written = column if _COLUMN.search(column) else f"{{{column}}}"
            return f'; there is {folder}{image}{suffix}: write image: "{folder}{written}{suffix}"'
    return '; `root:` says where paths start; image: "images/{id}.jpg", say, makes paths of a column id'


def _images_within(path: Path, columns: TableColumns, rows: Sequence[tuple[int, Row]], images: list[Any]) -> Items:
    """List images that lie in the table: bytes, or {"bytes": ..., "path": ...}."""
    encoded: list[Any] = [image.get("bytes") if isinstance(image, dict) else image for image in images]
    for (number, _), image, data in zip(rows, images, encoded, strict=True):
        if not isinstance(data, bytes):
            mend = f'; if its file is called so, write image: "{{{columns.image}}}.jpg"' * isinstance(image, int)
            raise InputError(
                f"{path}: row {number} holds {type(image).__name__}: neither a path nor an image's bytes{mend}"
            )
    ids = [str(number) for number, _ in rows]
    return Items(
        ids=ids,
        load=lambda i: decode.image(encoded[i], f"{path}, row {ids[i]}"),
        labels=_labels(rows, columns),
        content=lambda i: path,
    )


def _texts(value: object) -> set[str]:
    return {_text(each) for each in value} if isinstance(value, list) else {_text(value)}


def _text(value: object) -> str:
    """Return a cell as YAML, CSV and Parquet agree on it: true, 1 and not 1.0."""
    if isinstance(value, bool):
        return str(value).lower()
    text = composed(_plain(value[0] if isinstance(value, list) else value))
    return text.lower() if text.lower() in ("true", "false") else text


def _plain(value: object) -> str:
    """Return a cell as text, whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
