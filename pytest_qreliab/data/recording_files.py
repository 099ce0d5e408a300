"""Read and write the files of recordings: .npz, .safetensors and .parquet, none with pickle.

Each format holds one mapping of names to arrays, numbers and lists of strings. A name is one of `TOP`, `version`, or
`SET/PART` such as `in_distribution/ids`.
"""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from pytest_qreliab.errors import InputError, describe_exception, unknown

OutputKind = Literal["image_features", "logits", "probabilities"]
NamedArrays = Mapping[str, Any]

VERSION = 1
KINDS: tuple[OutputKind, ...] = get_args(OutputKind)
TOP = ("classes", "logit_scale", "logit_bias", "text_features", "model", "bits")
PARTS = ("ids", "labels", "among", *KINDS)
# The key of the schema's metadata, and the columns beside those of the outputs.
_PARQUET_KEY, _PARQUET_COLUMNS = b"qreliab", ("set", "id", "label")


def read(path: Path) -> dict[str, Any]:
    """Return what a file holds by name, unchecked: strings as lists, all else as arrays or numbers.

    Raises:
        InputError: It is no such file. The message does not name the path.
    """
    read_format = _format(path).read
    if not path.is_file():
        raise InputError("is not a file" if path.exists() else "there is no such file")
    try:
        return read_format(path)
    except InputError:
        raise
    except Exception as error:  # damaged files make the libraries raise whatever they come across
        what = (
            "strings must be of a 'U' dtype, not object" if "Object arrays" in str(error) else describe_exception(error)
        )
        raise InputError(f"cannot be read as {path.suffix}: {what}") from None


def write(path: Path, content: NamedArrays) -> None:
    """Write a checked recording to a file, which appears whole or not at all.

    Raises:
        InputError: The suffix is unknown, or the file cannot be written. The message does not name the path.
    """
    write_format = _format(path).write
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")  # in the same folder: only there is replacing atomic
    try:
        write_format(temporary, content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def group_by_set(content: NamedArrays) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the values of the whole recording, and the parts of each set."""
    top: dict[str, Any] = {}
    sets: dict[str, dict[str, Any]] = {}
    for name, value in content.items():
        group, slash, part = name.rpartition("/")
        (sets.setdefault(group, {}) if slash else top)[part] = value
    return top, sets


def _is_text(name: str) -> bool:
    return name in ("version", "classes", "model", "bits") or name.endswith("/ids")


def _read_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # np.load would take a single array as well
            raise InputError("is not an .npz archive, as np.savez writes it")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:  # not of the path: a damaged file would be left open
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    return {name: array.tolist() if array.dtype.kind == "U" else array for name, array in arrays.items()}


def _write_npz(path: Path, content: NamedArrays) -> None:
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in content.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _read_safetensors(path: Path) -> dict[str, Any]:
    with importlib.import_module("safetensors").safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        texts = {name: _parsed(name, text) for name, text in metadata.items() if _is_text(name)}
        return texts | {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def _write_safetensors(path: Path, content: NamedArrays) -> None:
    metadata = {name: json.dumps(value) for name, value in content.items() if _is_text(name)}
    tensors = {name: np.asarray(value) for name, value in content.items() if name not in metadata}
    path.write_bytes(importlib.import_module("safetensors.numpy").save(tensors, metadata))


def _read_parquet(path: Path) -> dict[str, Any]:
    arrow, parquet, compute = _import_pyarrow()
    # Text features make the metadata longer than the default limit where there are thousands of classes.
    with parquet.ParquetFile(path, thrift_string_size_limit=2**31 - 1) as file:
        table = file.read()
    for name in table.column_names:
        if name not in (*_PARQUET_COLUMNS, *KINDS):
            raise unknown("column", name, [*_PARQUET_COLUMNS, *KINDS])
    for name in ("set", "id"):
        if name not in table.column_names:
            raise InputError(f"lacks the column {name!r}")
    head = (table.schema.metadata or {}).get(_PARQUET_KEY)
    if head is None:
        raise InputError(f"the metadata of its schema lack the key {_PARQUET_KEY.decode()!r}")
    content = _parsed(_PARQUET_KEY.decode(), head)
    if not isinstance(content, dict):
        raise InputError(f"metadata {_PARQUET_KEY.decode()!r}: expected a JSON object")
    content = {name: value for name, value in content.items() if value is not None}
    content |= {f"{name}/among": value for name, value in content.pop("among", {}).items()}
    if "text_features" in content:
        content["text_features"] = np.asarray(content["text_features"], dtype=float)

    rows: dict[str, list[int]] = {}
    for row, name in enumerate(table["set"].to_pylist()):
        rows.setdefault(name, []).append(row)
    ids = table["id"].to_pylist()
    labels = table["label"] if "label" in table.column_names else arrow.nulls(len(ids))
    if not arrow.types.is_integer(labels.type) and not arrow.types.is_null(labels.type):
        raise InputError(f"the column 'label' must be int64, null where there is no label; found {labels.type}")
    absent = np.asarray(labels.is_null())
    numbers = None if absent.all() else np.asarray(labels.fill_null(0))
    values = {kind: _matrix(kind, table[kind], arrow, compute) for kind in KINDS if kind in table.column_names}
    for name, selected in rows.items():
        content[f"{name}/ids"] = [ids[row] for row in selected]
        content |= {f"{name}/{kind}": matrix[selected] for kind, matrix in values.items()}
        if numbers is not None and not absent[selected].all():
            if absent[selected].any():
                first = ids[selected[int(absent[selected].argmax())]]
                raise InputError(
                    f"{name}: {absent[selected].sum()} of {len(selected)} labels are null, the first is of id {first!r}"
                )
            content[f"{name}/labels"] = numbers[selected]
    return content


def _matrix(kind: str, column: Any, arrow: Any, compute: Any) -> npt.NDArray[Any]:
    """Return a column of lists of one length as a matrix, one row each."""
    kinds = (arrow.types.is_list, arrow.types.is_large_list, arrow.types.is_fixed_size_list)
    if not any(check(column.type) for check in kinds):
        raise InputError(f"the column {kind!r} must be of lists of float32, found {column.type}")
    widths = compute.min_max(compute.list_value_length(column)).as_py()
    if column.null_count or widths["min"] != widths["max"]:
        raise InputError(
            f"the lists of the column {kind!r} must be of one length: {column.null_count} are null, the others "
            f"have from {widths['min']} to {widths['max']} elements"
        )
    chunks = [np.asarray(chunk.flatten()) for chunk in column.chunks]
    return np.concatenate(chunks).reshape(len(column), -1 if widths["max"] else 0) if chunks else np.zeros((0, 0))


def _write_parquet(path: Path, content: NamedArrays) -> None:
    arrow, parquet, _ = _import_pyarrow()
    top, sets = group_by_set(content)
    if "text_features" in top:
        top["text_features"] = top["text_features"].tolist()
    top["among"] = {name: parts["among"].tolist() for name, parts in sets.items() if "among" in parts}
    (kind,) = {part for parts in sets.values() for part in parts if part in KINDS}
    values = np.concatenate([parts[kind] for parts in sets.values()])
    labels = [parts.get("labels", np.array([None] * len(parts["ids"]))) for parts in sets.values()]
    columns = {
        "set": arrow.array([name for name, parts in sets.items() for _ in parts["ids"]], arrow.string()),
        "id": arrow.array([sample for parts in sets.values() for sample in parts["ids"]], arrow.string()),
        "label": arrow.array([label for part in labels for label in part.tolist()], arrow.int64()),
        kind: arrow.FixedSizeListArray.from_arrays(arrow.array(values.ravel()), values.shape[1]),
    }
    metadata = {_PARQUET_KEY: json.dumps(top)}
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), path, use_dictionary=["set"])


class _PyArrow(NamedTuple):
    arrow: Any
    parquet: Any
    compute: Any


def _import_pyarrow() -> _PyArrow:
    try:
        return _PyArrow(*map(importlib.import_module, ("pyarrow", "pyarrow.parquet", "pyarrow.compute")))
    except ImportError as error:
        raise InputError(
            f"needs pyarrow: pip install 'pytest-qreliab[parquet]' ({describe_exception(error)})"
        ) from None


def _parsed(name: str, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"metadata {name!r} are not JSON: {error}") from None


class _Format(NamedTuple):
    read: Callable[[Path], dict[str, Any]]
    write: Callable[[Path, NamedArrays], None]


_FORMATS = {
    ".npz": _Format(_read_npz, _write_npz),
    ".safetensors": _Format(_read_safetensors, _write_safetensors),
    ".parquet": _Format(_read_parquet, _write_parquet),
}


def _format(path: Path) -> _Format:
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise unknown("suffix", path.suffix, _FORMATS)
    return _FORMATS[suffix]
