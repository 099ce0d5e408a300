"""The data sets of torchvision, by the name of their class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.data.sources.suffixes import is_hidden, is_image, not_images
from pytest_qreliab.errors import InputError, unknown

# The attributes that hold the labels; a class without one is asked for every sample.
_LABELS = ("targets", "labels", "_labels", "y")


def list_items(
    dataset: str, root: Path, arguments: Mapping[str, object], *, download: bool = False, labelled: bool = True
) -> Items:
    """List the samples of a data set; their ids are indices, in its own order.

    Args:
        dataset: The name of the class.
        root: The folder of the data.
        arguments: Other arguments of the class.
        download: Whether the data may be downloaded.
        labelled: Whether labels are needed, which are indices of classes.

    Raises:
        InputError: The name or an argument is unknown, the data do not exist, or the labels are no indices.
    """
    others: list[str] = []
    samples = _open(dataset, root, arguments, others, download=download)

    def load(index: int) -> Image.Image:
        try:
            image = samples[index][0]
        except Exception as error:
            raise InputError(f"image {index} of {dataset} in {root} cannot be read: {error}") from None
        return (
            image if isinstance(image, Image.Image) else decode.from_array(np.asarray(image), f"{index} of {dataset}")
        )

    labels = _labels(samples, dataset) if labelled else None
    left_out = (not_images(others),) if others else ()
    return Items(ids=list(map(str, range(len(samples)))), load=load, labels=labels, left_out=left_out)


def _open(dataset: str, root: Path, arguments: Mapping[str, object], others: list[str], *, download: bool) -> Any:
    """Return an instance of the class; the names of files that it leaves out are added to `others`."""
    from torchvision import datasets

    classes: dict[str, Any] = {
        name: member
        for name in datasets.__all__
        if inspect.isclass(member := getattr(datasets, name)) and issubclass(member, datasets.VisionDataset)
    }
    if dataset not in classes:
        raise unknown("torchvision data set", dataset, classes)
    parameters = inspect.signature(classes[dataset]).parameters
    can_download = "download" in parameters
    if download and not can_download:
        raise InputError(f"torchvision cannot download {dataset}: get it by hand, and leave out `download`")
    ours = {"root": str(root), "download": download}
    call: dict[str, Any] = {**{name: value for name, value in ours.items() if name in parameters}, **arguments}
    if "loader" in parameters or issubclass(classes[dataset], datasets.DatasetFolder):
        # Torchvision's own loader clips 16-bit images and leaves photographs as the camera was held.
        call.setdefault("loader", lambda path: decode.image(Path(path), str(path)))
    if "is_valid_file" in parameters and "extensions" not in arguments:
        call["is_valid_file"] = lambda path: _is_sample(Path(path), others)
    try:
        return classes[dataset](**call)
    # Each class has its own way to say that the data are not there, or damaged.
    except Exception as error:
        mend = "; to get it, `download: true`" if can_download and not download else ""
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"torchvision's {dataset} in {root} cannot be opened: {reason}{mend}") from None


def _is_sample(path: Path, others: list[str]) -> bool:
    """Return whether a file is an image; torchvision would leave out some that Pillow reads, and take hidden files."""
    if is_hidden(path.name):
        return False
    if not path.exists():
        raise InputError(f"{path} is a link to nothing: fetch the file, as with `git annex get` or `dvc pull`")
    if not is_image(path.name):
        others.append(path.name)
        return False
    return True


def _labels(samples: Any, dataset: str) -> list[str]:
    """Return the labels, without a look at the images if the data set keeps them apart."""
    targets = next((value for name in _LABELS if (value := getattr(samples, name, None)) is not None), None)
    if targets is None and hasattr(samples, "samples"):
        targets = [label for _, label in samples.samples]
    elif targets is None:
        targets = [samples[i][1] for i in range(len(samples))]
    labels = np.asarray(targets)
    if labels.shape != (len(samples),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"the targets of torchvision's {dataset} are no class indices, so that it can be an OOD set only"
        )
    return [str(label) for label in labels.tolist()]
