"""List the items of a source as a benchmark file writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_qreliab.config import sources as schema
from pytest_qreliab.data.images import ImageSet, Items
from pytest_qreliab.data.sources import builtin, folders
from pytest_qreliab.errors import InputError

# What a source writes as a label if the benchmark does not say; `index` for all others.
LABELLED_BY: dict[str, schema.LabelledBy] = {"image-folder": "key", "table": "key"}

ResolvePath = Callable[[str], Path]


def labelled_by(source: schema.AnyLabelled) -> schema.LabelledBy:
    """Return what the source writes as a label: the key of a class, its index, or its name."""
    return source.labelled_by or LABELLED_BY.get(source.source, "index")


def offers_labels(source: schema.AnySource) -> bool:
    """Return whether a source has labels that it is not asked for: as it is written, or by its kind."""
    match source:
        case schema.Table() | schema.WebDataset() | schema.HuggingFace():
            return source.label is not None
        case schema.Arrays():
            return source.labels is not None
    return True


def list_items(source: schema.AnySource, path: ResolvePath, *, labelled: bool) -> Items:
    """List the images of a source, without decoding them.

    Args:
        source: The source, as a benchmark file writes it.
        path: Resolves a path that is written in it.
        labelled: Whether labels are needed.

    Raises:
        InputError: Files, columns or labels do not exist or cannot be read.
    """
    match source:
        case schema.Digits():
            coloured = builtin.coloured_digits(source.part, source.colour) if source.colour else None
            return _of_set(coloured or builtin.digits(source.part))
        case schema.PrintedDigits():
            return _of_set(builtin.printed_digits())
        case schema.Letters():
            return _of_set(builtin.letters())
        case schema.PhotoPatches():
            return _of_set(builtin.photo_patches())
        case schema.ImageFolder():
            return folders.list_labelled(path(source.path), source.pattern, partial=source.partial)
        case schema.FlatFolder():
            return folders.list_unlabelled(path(source.path))
    return _list_by_library(source, path, labelled=labelled)


def _list_by_library(
    source: schema.Table | schema.Torchvision | schema.WebDataset | schema.HuggingFace | schema.Arrays,
    path: ResolvePath,
    *,
    labelled: bool,
) -> Items:
    # Imported here: each brings in a library that most runs do without.
    match source:
        case schema.Table():
            return _list_rows(source, path, source.label or ("label" if labelled else None))
        case schema.Torchvision():
            from pytest_qreliab.data.sources import torchvision_sets

            return torchvision_sets.list_items(
                source.dataset, path(source.root), source.arguments, download=source.download, labelled=labelled
            )
        case schema.WebDataset():
            from pytest_qreliab.data.sources import webdataset

            return webdataset.list_items(path(source.path), source.label or ("cls" if labelled else None), source.image)
        case schema.HuggingFace():
            from pytest_qreliab.data.sources import huggingface

            wanted = huggingface.HubDataset(
                path=None if source.path is None else path(source.path),
                name=source.name,
                revision=source.revision,
                config=source.config,
                split=source.split,
                image=source.image,
                label=source.label or ("label" if labelled else None),
                label_names=labelled_by(source) != "index",
            )
            return huggingface.list_items(wanted)
        case schema.Arrays():
            return _list_arrays(source, path, labelled=labelled)


def list_captioned(source: schema.AnyCaptions, path: ResolvePath) -> Items:
    """List image-caption pairs, without decoding the images.

    Args:
        source: Where the pairs are, as a benchmark file writes it.
        path: Resolves a path that is written in it.

    Returns:
        The images, with their captions as labels.

    Raises:
        InputError: Files or columns do not exist or cannot be read, or a caption is empty.
    """
    match source:
        case schema.CaptionTable():
            items = _list_rows(source, path, source.caption)
        case schema.CaptionShards():
            from pytest_qreliab.data.sources import webdataset

            items = webdataset.list_items(path(source.path), source.caption, source.image)
    captions = items.labels or ()
    empty = [identity for identity, caption in zip(items.ids, captions, strict=True) if not caption.strip()]
    if empty:
        raise InputError(
            f"{path(source.path)}: {len(empty)} of {len(items)} captions are empty; the first: that of {empty[0]}; "
            "write them, or take these images out"
        )
    return items


def _list_rows(source: schema.Table | schema.CaptionTable, path: ResolvePath, label: str | None) -> Items:
    from pytest_qreliab.data.sources import tables

    columns = tables.TableColumns(
        image=source.image,
        label=label,
        head=source.columns,
        delimiter=source.delimiter,
        where=source.where,
        skips_missing=source.missing_images == "skip",
        captions=isinstance(source, schema.CaptionTable),
    )
    return tables.list_items(path(source.path), columns, None if source.root is None else path(source.root))


def _list_arrays(source: schema.Arrays, path: ResolvePath, *, labelled: bool) -> Items:
    from pytest_qreliab.data.sources import arrays

    labels: Path | str | None = None
    if labelled:
        if source.labels is None:
            raise InputError(
                "`labels:` is missing: the path of a .npy file with the index of each image's class, or in a .npz file "
                "the name of its array"
            )
        labels = source.labels if source.path.endswith(".npz") else path(source.labels)
    return arrays.list_items(path(source.path), source.images, labels, source.part)


def _of_set(images: ImageSet) -> Items:
    labels = None if images.labels is None else [str(label) for label in images.labels]
    return Items(ids=images.ids, load=images.load, labels=labels, content=images.content, units=images.units)
