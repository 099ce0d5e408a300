"""Data sets of the package `datasets`: saved to disk, or of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.data.sources import hub_rows
from pytest_qreliab.data.sources.hub_rows import HubRows
from pytest_qreliab.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """A data set, and the columns of it that are read."""

    path: Path | None = None  # of one saved to disk
    name: str | None = None  # of one on the hub
    revision: str | None = None  # of one on the hub: a branch, tag or commit; None: main
    config: str | None = None
    split: str | None = None
    image: str = "image"  # a column
    label: str | None = None  # a column; None reads no labels
    label_names: bool = False  # labels of a column of classes are their names, not their indices

    @property
    def where(self) -> str:
        """The data set in messages."""
        return str(self.path or self.name)

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [self.image, *([] if self.label is None else [self.label])]


def list_items(wanted: HubDataset) -> Items:
    """List the rows of a data set; their ids are the numbers of the rows.

    Raises:
        InputError: The package, the data set, its split or a column does not exist, or the data set holds no images.
    """
    try:
        import datasets
    except ImportError:
        raise InputError("data sets of Hugging Face need pip install 'pytest-qreliab[datasets]'") from None
    opened, where = _open(wanted, datasets), wanted.where
    rows = _split(opened.rows, wanted)
    for column in wanted.columns:
        if column not in rows.column_names:
            raise InputError(f"{where}: {unknown('column', column, rows.column_names)}")
    if not isinstance(rows.features[wanted.image], datasets.Image):
        raise InputError(f"{where}: the column {wanted.image!r} holds no images but {rows.features[wanted.image]}")
    if not len(rows):
        raise InputError(f"{where} holds no rows")
    encoded = rows.cast_column(wanted.image, datasets.Image(decode=False))

    def load(index: int) -> Image.Image:
        value = encoded[index][wanted.image]
        what = f"{where}, row {index}"
        if not value or (value.get("bytes") is None and value.get("path") is None):
            raise InputError(f"image {what} cannot be decoded: there is none")
        return decode.image(Path(value["path"]) if value.get("bytes") is None else value["bytes"], what)

    labels = None if wanted.label is None else _labels(rows, wanted.label, wanted.label_names, datasets.ClassLabel)
    return Items(ids=list(map(str, range(len(rows)))), load=load, labels=labels, origin=opened.origin)


def _open(wanted: HubDataset, datasets: Any) -> HubRows:
    if wanted.name is not None and not Path(wanted.name).is_dir():  # the library takes a folder for a data set
        return hub_rows.load_rows(hub_rows.reference_of(wanted.name, wanted.revision), wanted.config, wanted.split)
    try:
        if wanted.path is not None:
            return HubRows(datasets.load_from_disk(str(wanted.path)))
        return HubRows(datasets.load_dataset(wanted.name, wanted.config, split=wanted.split))
    # Files, names: the library raises whatever it comes across.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the data set {wanted.where} cannot be loaded: {reason}") from None


def _split(opened: Any, wanted: HubDataset) -> Any:
    """Return the split that is wanted of a data set; raise InputError if there are others only."""
    if not isinstance(opened, dict):
        return opened
    split = wanted.split
    if split not in opened:
        asked = unknown("split", split, opened) if split else f"say which `split:`: {', '.join(sorted(opened))}"
        raise InputError(f"{wanted.where}: {asked}")
    return opened[split]


def _labels(rows: Any, label: str, names: bool, class_label: type) -> list[str]:
    feature, values = rows.features[label], list(rows[label])
    if names and isinstance(feature, class_label):
        known: Sequence[str] = feature.names  # type: ignore[attr-defined]
        # Test splits often have -1 in place of the label.
        return [known[value] if value in range(len(known)) else str(value) for value in values]
    return list(map(str, values))
