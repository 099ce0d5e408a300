"""Data sets of the package `datasets`: saved to disk, or of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.errors import InputError, unknown


def items(
    path: Path | None,
    name: str | None,
    config: str | None,
    split: str | None,
    image: str,
    label: str | None,
    *,
    names: bool,
) -> Items:
    """The rows of a data set that was saved at `path`, or that has that `name` on the hub.

    Labels of a column of classes are their indices, or, for `names`, their names. Ids are the numbers of the rows.
    Raises InputError for what is not there, and for a split or column that there is not.
    """
    try:
        import datasets
    except ImportError:
        raise InputError("data sets of Hugging Face need pip install 'pytest-qreliab[datasets]'") from None
    where = str(path or name)
    try:
        if path is not None:
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(name, config, split=split)
    # Files, network, names: the library raises whatever it comes across.
    except Exception as error:
        raise InputError(f"the data set {where} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    if isinstance(found, dict):
        if split not in found:
            asked = unknown("split", split, found) if split else f"say which `split:`: {', '.join(sorted(found))}"
            raise InputError(f"{where}: {asked}")
        found = found[split]
    for column in (image, *([] if label is None else [label])):
        if column not in found.column_names:
            raise InputError(f"{where}: {unknown('column', column, found.column_names)}")
    if not isinstance(found.features[image], datasets.Image):
        raise InputError(f"{where}: the column {image!r} holds no images but {found.features[image]}")
    if not len(found):
        raise InputError(f"{where} holds no rows")
    found = found.cast_column(image, datasets.Image(decode=False))
    ids = list(map(str, range(len(found))))

    def load(index: int) -> Image.Image:
        value = found[index][image]
        what = f"{where}, row {index}"
        if not value or (value.get("bytes") is None and value.get("path") is None):
            raise InputError(f"image {what} cannot be decoded: there is none")
        return decode.image(Path(value["path"]) if value.get("bytes") is None else value["bytes"], what)

    return Items(ids, load, None if label is None else _labels(found, label, names, datasets.ClassLabel))


def _labels(found: Any, label: str, names: bool, class_label: type) -> list[str]:
    feature, values = found.features[label], list(found[label])
    if names and isinstance(feature, class_label):
        return [feature.names[value] for value in values]  # type: ignore[attr-defined]
    return list(map(str, values))
