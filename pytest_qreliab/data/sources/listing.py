"""From a source as a benchmark file writes it to the items that it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_qreliab.config import sources as schema
from pytest_qreliab.data.images import ImageSet, Items
from pytest_qreliab.data.sources import builtin, folders

# What a source writes as a label where nothing is said.
LABELLED_BY: dict[str, schema.LabelledBy] = {"image-folder": "key", "table": "key"}


def labelled_by(source: schema.AnyLabelled) -> schema.LabelledBy:
    """What the source writes as a label: the key of a class, its index, or its name."""
    return source.labelled_by or LABELLED_BY.get(source.source, "index")


def offers_labels(source: schema.AnySource) -> bool:
    """Whether the source has labels even where nobody must have them: as it is written, or by its kind."""
    match source:
        case schema.Table() | schema.WebDataset() | schema.HuggingFace():
            return source.label is not None
        case schema.Arrays():
            return source.labels is not None
    return True


def items(source: schema.AnySource, path: Callable[[str], Path], labelled: bool) -> Items:
    """What the source holds, listed but not decoded, with labels where `labelled`; `path` resolves one written in it.

    Raises InputError for what is not there or cannot be read.
    """
    # Imported here: each brings in a library that most runs do without.
    match source:
        case schema.Digits():
            images = builtin.coloured_digits(source.part, source.colour) if source.colour else None
            return _of_set(images or builtin.digits(source.part))
        case schema.PrintedDigits():
            return _of_set(builtin.printed_digits())
        case schema.Letters():
            return _of_set(builtin.letters())
        case schema.PhotoPatches():
            return _of_set(builtin.photo_patches())
        case schema.ImageFolder():
            return folders.by_class(path(source.path), source.pattern)
        case schema.FlatFolder():
            return folders.flat(path(source.path))
        case schema.Table():
            from pytest_qreliab.data.sources import tables

            root = None if source.root is None else path(source.root)
            label = source.label or ("label" if labelled else None)
            return tables.items(
                path(source.path), source.image, label, root, source.columns, source.delimiter, source.where
            )
        case schema.Torchvision():
            from pytest_qreliab.data.sources import torchvision_sets

            return torchvision_sets.items(
                source.dataset, path(source.root), source.arguments, source.download, labelled
            )
        case schema.WebDataset():
            from pytest_qreliab.data.sources import webdataset

            return webdataset.items(path(source.path), source.label or ("cls" if labelled else None))
        case schema.HuggingFace():
            from pytest_qreliab.data.sources import huggingface

            folder = None if source.path is None else path(source.path)
            label = source.label or ("label" if labelled else None)
            names = labelled_by(source) != "index"
            return huggingface.items(folder, source.name, source.config, source.split, source.image, label, names=names)
        case schema.Arrays():
            from pytest_qreliab.data.sources import arrays

            in_file = source.path.endswith(".npz") or source.labels is None
            labels = source.labels if in_file else path(source.labels or "")
            return arrays.items(path(source.path), source.images, labels if labelled else None, source.part)


def _of_set(images: ImageSet) -> Items:
    labels = None if images.labels is None else [str(label) for label in images.labels]
    return Items(images.ids, images.load, labels, images.content)
