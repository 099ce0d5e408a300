"""Calibration data: images and prompts that quantizers may look at.

Nothing is measured on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pytest_qreliab.data.batches import BATCH, batches
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.preprocessing import Preprocess
from pytest_qreliab.models.clip import Clip

PROMPTS = 512  # the most that a quantizer looks at

ReadBatches = Callable[[ImageSet, Preprocess], Iterator[torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images and prompts that a quantizer may look at."""

    images: ImageSet | None  # to set ranges and to train on; labels, if any, index `classes`; None: there are none
    held_out: ImageSet | None  # labelled images for fitting the logit scale, which no quantizer looks at
    classes: Sequence[str]
    templates: Sequence[str]  # of prompts, with {} for the class
    read: ReadBatches = batches  # returns the preprocessed batches of images, (batch, 3, height, width)

    @classmethod
    def split(
        cls,
        images: ImageSet | None,
        classes: Sequence[str],
        templates: Sequence[str],
        read: ReadBatches = batches,
    ) -> Calibration:
        """Return calibration data with the images that `held_out` picks set apart."""
        apart = None if images is None else held_out(images)
        rest = images
        if images is None or apart is None or not apart.any():
            apart_images = None
        else:
            rest, apart_images = images.take(np.flatnonzero(~apart)), images.take(np.flatnonzero(apart))
        return cls(images=rest, held_out=apart_images, classes=classes, templates=templates, read=read)

    def batches(self, clip: Clip, limit: int) -> Iterator[torch.Tensor]:
        """Yield preprocessed images, (batch, 3, height, width).

        They are evenly spaced and at most `limit`.
        """
        if self.images is not None:
            yield from self.read(self.images.first_evenly(limit), clip.preprocess)

    def captions(self, label: int) -> list[str]:
        """Return every template with the name of a class."""
        return [template.replace("{}", self.classes[label]) for template in self.templates]

    def prompt_batches(self) -> Iterator[list[str]]:
        """Yield the prompts of all classes, at most 512 evenly spaced ones."""
        prompts = [prompt for label in range(len(self.classes)) for prompt in self.captions(label)]
        some = prompts[:: -(-len(prompts) // PROMPTS)]
        for start in range(0, len(some), BATCH):
            yield some[start : start + BATCH]


def held_out(images: ImageSet) -> npt.NDArray[np.bool_]:
    """Return which images no quantizer looks at, bool (n,).

    These are every fourth image if the images have labels, else none.
    """
    fourth: npt.NDArray[np.bool_] = np.arange(len(images)) % 4 == 3
    return fourth & (images.labels is not None)
