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
from pytest_qreliab.errors import InputError, unknown

# Where the classes keep the labels; those that keep them nowhere are asked for every sample.
_LABELS = ("targets", "labels", "_labels", "y")


def items(dataset: str, root: Path, arguments: Mapping[str, object], download: bool, labelled: bool) -> Items:
    """The samples of a data set in the folder `root`; `arguments` are the others that its class takes.

    Nothing is downloaded unless `download`. Ids are indices, labels indices of classes, in the data set's own order.
    Raises InputError for a name that is none, arguments that it does not take, and data that are not there.
    """
    from torchvision import datasets

    known: dict[str, Any] = {
        name: found
        for name in datasets.__all__
        if inspect.isclass(found := getattr(datasets, name)) and issubclass(found, datasets.VisionDataset)
    }
    if dataset not in known:
        raise unknown("torchvision data set", dataset, known)
    takes = inspect.signature(known[dataset]).parameters
    able = "download" in takes
    if download and not able:
        raise InputError(f"torchvision cannot download {dataset}: get it by hand, and leave out `download`")
    ours = {"root": str(root), "download": download}
    call: dict[str, Any] = {**{name: value for name, value in ours.items() if name in takes}, **arguments}
    if "loader" in takes or issubclass(known[dataset], datasets.DatasetFolder):
        # Torchvision's own loader clips 16-bit images and leaves photographs as the camera was held.
        call.setdefault("loader", lambda path: decode.image(Path(path), str(path)))
    try:
        found = known[dataset](**call)
    # Each class has its own way to say that the data are not there, or damaged.
    except Exception as error:
        mend = "; to get it, `download: true`" if able and not download else ""
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"torchvision's {dataset} in {root} cannot be opened: {reason}{mend}") from None

    def load(index: int) -> Image.Image:
        try:
            image = found[index][0]
        except Exception as error:
            raise InputError(f"image {index} of {dataset} in {root} cannot be read: {error}") from None
        return (
            image if isinstance(image, Image.Image) else decode.from_array(np.asarray(image), f"{index} of {dataset}")
        )

    labels = _labels(found, dataset) if labelled else None
    return Items(list(map(str, range(len(found)))), load, labels)


def _labels(found: Any, dataset: str) -> list[str]:
    kept = next((value for name in _LABELS if (value := getattr(found, name, None)) is not None), None)
    if kept is None:
        kept = (
            [label for _, label in found.samples]
            if hasattr(found, "samples")
            else [found[i][1] for i in range(len(found))]
        )
    labels = np.asarray(kept)
    if labels.shape != (len(found),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"the targets of torchvision's {dataset} are no class indices, so that it can be an OOD set only"
        )
    return [str(label) for label in labels.tolist()]
