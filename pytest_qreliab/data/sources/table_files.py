"""The rows of tables: CSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_qreliab.data.wording import counted
from pytest_qreliab.errors import InputError

Row = Mapping[str, Any]


def read(path: Path, head: Sequence[str] | None, delimiter: str | None) -> list[tuple[int, Row]]:
    """Return the rows of a table with their numbers: lines of the file, or from 0 in Parquet.

    Args:
        path: A `.parquet` file, a `.jsonl` file with an object on each line, or a CSV file of any other suffix.
        head: The columns of a CSV file without a head.
        delimiter: What is between the cells of a CSV file; None stands for a tab in a `.tsv` file, else a comma.

    Raises:
        InputError: The file does not exist or is damaged, or a row has too many or too few cells.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    try:
        if suffix in (".jsonl", ".ndjson"):
            return _json_lines(path)
        return _csv(path, head, delimiter or ("\t" if suffix == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8 text; save it as such"
        raise InputError(f"{path}: the table cannot be read: {reason}") from None


def _csv(path: Path, head: Sequence[str] | None, delimiter: str) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter)
        names = list(head) if head is not None else next(reader, [])
        for cells in reader:
            if cells and len(cells) != len(names):
                raise InputError(
                    f"{path}:{reader.line_num}: {counted(len(cells), 'cell')} for the columns {', '.join(names)}"
                )
            if cells:
                rows.append((reader.line_num, dict(zip(names, cells, strict=True))))
    return rows


def _json_lines(path: Path) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}: not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: a {type(row).__name__}; each line is an object of columns")
            rows.append((number, row))
    names = dict.fromkeys(name for _, row in rows for name in row)  # an object may leave some out
    return [(number, {name: row.get(name) for name in names}) for number, row in rows]


def _parquet(path: Path) -> list[tuple[int, Row]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pip install 'pytest-qreliab[parquet]'") from None
    try:
        return list(enumerate(parquet.read_table(path).to_pylist()))
    # A damaged file raises nearly everything: ArrowException, OSError, UnicodeDecodeError, OverflowError ...
    except Exception as error:
        raise InputError(f"{path}: the table cannot be read: {' '.join(str(error).split())}") from None
