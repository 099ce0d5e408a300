"""Image sets: numbered images, decoded when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_qreliab.data.sampling import evenly_spaced, stratified_sample

# What tells the content of an image without decoding it: the file that it is in, alone or with others, or a digest.
Content = Callable[[int], "Path | str"]


@dataclass(frozen=True)
class Items:
    """What a source holds: for each image an id, the same on every machine, and the label as the source writes it.

    `load(i)` returns image i and raises InputError if it cannot be read. Labels that are numbers are in decimal.
    Without `content` an image is decoded to know it.
    """

    ids: Sequence[str]
    load: Callable[[int], Image.Image]
    labels: Sequence[str] | None = None
    content: Content | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Corruption:
    """What is done to every image of a set once it has the size that the model sees."""

    kind: str
    severity: int
    seed: int


@dataclass(frozen=True)
class ImageSet:
    """Images that are read one by one, with an id each.

    `load(i)` returns image i (PIL, any mode) and raises InputError if it cannot be read. `labels`, int64 of shape (n,),
    index the benchmark's classes; None for an OOD set. Where `classes`, int64, is given, only those are told apart.
    `content(i)` is what tells image i from another one of the same id.
    """

    name: str
    ids: Sequence[str]
    load: Callable[[int], Image.Image]
    labels: npt.NDArray[np.int64] | None = None
    classes: npt.NDArray[np.int64] | None = None
    corruption: Corruption | None = None
    content: Content | None = None

    def __post_init__(self) -> None:
        if self.content is None:
            object.__setattr__(self, "content", cache(partial(_decoded, self.load)))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: npt.NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order."""
        picked = indices.tolist()
        labels = None if self.labels is None else self.labels[indices]
        ids = [self.ids[index] for index in picked]
        content = self.content
        assert content is not None
        return replace(
            self,
            ids=ids,
            load=lambda i: self.load(picked[i]),
            labels=labels,
            content=lambda i: content(picked[i]),
        )

    def first_evenly(self, limit: int) -> ImageSet:
        """At most `limit` images, evenly spaced over the set."""
        return self if limit >= len(self) else self.take(evenly_spaced(len(self), limit))

    def sampled(self, limit: int | None, seed: int) -> ImageSet:
        """At most `limit` images, drawn at random, in the order of the set: see `draw`."""
        if limit is None or limit >= len(self):
            return self
        return self.take(stratified_sample(len(self), self.labels, limit, seed))


def from_arrays(name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64] | None = None) -> ImageSet:
    """An image set of uint8 arrays, (n, height, width) greyscale or (n, height, width, 3) RGB."""
    return ImageSet(name, list(map(str, range(len(images)))), lambda i: Image.fromarray(images[i]), labels)


def _decoded(load: Callable[[int], Image.Image], index: int) -> str:
    """A digest of what the pixels of an image show, whatever file they are from."""
    image = load(index)
    found = blake2b(f"{image.mode} {image.size} {image.getpalette()}".encode(), digest_size=16)
    found.update(image.tobytes())
    return found.hexdigest()
