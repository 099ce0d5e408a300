"""The image set: a named, ordered, indexable collection of images, labelled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True)
class ImageSet:
    """`size` images, read one by one.

    `load(i)` returns image i (PIL, any mode) and raises InputError if it cannot be read. `labels`, int64
    of shape (size,), index the benchmark's classes; None for an OOD set.
    """

    name: str
    size: int
    load: Callable[[int], Image.Image]
    labels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.size

    def take(self, indices: npt.NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order."""
        picked = indices.tolist()
        labels = None if self.labels is None else self.labels[indices]
        return ImageSet(self.name, len(picked), lambda i: self.load(picked[i]), labels)

    def limited(self, limit: int | None) -> ImageSet:
        """At most `limit` images, evenly spaced over the set, so that a set sorted by class keeps its classes."""
        if limit is None or limit >= self.size:
            return self
        return self.take(np.arange(limit, dtype=np.int64) * self.size // limit)


def from_arrays(name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64] | None = None) -> ImageSet:
    """An image set of uint8 arrays, (n, height, width) greyscale or (n, height, width, 3) RGB."""
    return ImageSet(name, len(images), lambda i: Image.fromarray(images[i]), labels)
