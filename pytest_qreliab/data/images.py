"""Image sets: numbered images, decoded when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_qreliab.data.sampling import evenly_spaced, stratified_sample
from pytest_qreliab.hashing import bytes_digest
from pytest_qreliab.statistics.arrays import IntArray

Pixels = npt.NDArray[np.uint8]

LoadImage = Callable[[int], Image.Image]  # raises InputError for an image that cannot be read

# Tells an image from another one of the same id: the file that holds it, alone or with others, or a digest.
IdentifyContent = Callable[[int], "Path | str"]


class LeftOut(NamedTuple):
    """Some images or files of a source that its image set does not hold."""

    text: str  # with the number, as in `3 rows are left out, ...`
    on_request: bool = False  # the benchmark file asks for it; only `qreliab check` says it then


class HubOrigin(NamedTuple):
    """The data set of a hub that images come from."""

    repository: str
    commit: str  # 40 hexadecimal digits
    warning: str = ""  # if the commit may not be the newest


@dataclass(frozen=True, kw_only=True)
class Items:
    """The images that a source holds, listed but not decoded."""

    ids: Sequence[str]  # the same on every machine
    load: LoadImage
    labels: Sequence[str] | None = None  # as the source writes them, numbers in decimal
    content: IdentifyContent | None = None  # None: an image has to be decoded to know it
    units: Sequence[str] | None = None  # what each image shows, if several images show the same
    left_out: tuple[LeftOut, ...] = ()
    origin: HubOrigin | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Corruption:
    """A corruption of every image of a set, once it has the size that the model sees."""

    kind: str
    severity: int  # 1 to 5
    seed: int


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images of a benchmark's set, which are read one by one, with an id and perhaps a label each."""

    name: str
    ids: Sequence[str]
    load: LoadImage  # PIL images of any mode
    labels: IntArray | None = None  # (n,), indices of the benchmark's classes; None for an OOD set
    classes: IntArray | None = None  # the only classes that a prediction may name; None: all
    corruption: Corruption | None = None
    content: IdentifyContent | None = None  # None: a digest of the decoded pixels
    # (n,), what each image shows: images of one unit, in this set or in others, are one observation. None: all differ.
    units: Sequence[str] | None = None
    captions: Sequence[str] | None = None  # (n,), a text about each image
    left_out: tuple[LeftOut, ...] = ()
    origin: HubOrigin | None = None

    def __post_init__(self) -> None:
        if self.content is None:
            object.__setattr__(self, "content", cache(partial(_decoded_digest, self.load)))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known_labels(self) -> IntArray:
        """The labels of a set that has some."""
        if self.labels is None:
            raise ValueError(f"{self.name} has no labels")
        return self.labels

    @property
    def known_captions(self) -> Sequence[str]:
        """The captions of a set that has some."""
        if self.captions is None:
            raise ValueError(f"{self.name} has no captions")
        return self.captions

    def identify(self, index: int) -> Path | str:
        """Return what tells one image from another one of the same id."""
        return _decoded_digest(self.load, index) if self.content is None else self.content(index)

    def take(self, indices: IntArray) -> ImageSet:
        """Return the images at `indices`, int64 (k,), in that order."""
        picked = indices.tolist()
        return replace(
            self,
            ids=[self.ids[index] for index in picked],
            load=lambda i: self.load(picked[i]),
            labels=None if self.labels is None else self.labels[indices],
            content=lambda i: self.identify(picked[i]),
            units=None if self.units is None else [self.units[index] for index in picked],
            captions=None if self.captions is None else [self.captions[index] for index in picked],
        )

    def first_evenly(self, limit: int) -> ImageSet:
        """Return at most `limit` images, evenly spaced over the set."""
        return self if limit >= len(self) else self.take(evenly_spaced(len(self), limit))

    def sampled(self, limit: int | None, seed: int) -> ImageSet:
        """Return at most `limit` images, drawn with a seed by `stratified_sample`, in the order of the set."""
        if limit is None or limit >= len(self):
            return self
        return self.take(stratified_sample(len(self), self.labels, limit, seed))


def from_arrays(name: str, images: Pixels, labels: IntArray | None = None) -> ImageSet:
    """Return an image set of arrays.

    Args:
        name: The name of the set.
        images: uint8, (n, height, width) greyscale or (n, height, width, 3) RGB.
        labels: int64 (n,).
    """
    ids = list(map(str, range(len(images))))
    return ImageSet(name=name, ids=ids, load=lambda i: Image.fromarray(images[i]), labels=labels)


def _decoded_digest(load: LoadImage, index: int) -> str:
    """Return a digest of what the pixels of an image show, whatever file they come from."""
    image = load(index)
    return bytes_digest(f"{image.mode} {image.size} {image.getpalette()}".encode(), image.tobytes())
