"""Calibration data: images and prompts, none of which are measured on, that a quantizer may look at."""

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

PROMPTS = 512


@dataclass(frozen=True)
class Calibration:
    """`images` set ranges and train; their labels, if they have any, index `classes`.

    `held_out` are labelled images on which nothing but the logit scale is fitted. Either is None where the
    benchmark has none. Prompts are the classes in the templates. `read` gives the preprocessed batches of images.
    """

    images: ImageSet | None
    held_out: ImageSet | None
    classes: Sequence[str]
    templates: Sequence[str]
    read: Callable[[ImageSet, Preprocess], Iterator[torch.Tensor]] = batches

    @classmethod
    def split(
        cls,
        images: ImageSet | None,
        classes: Sequence[str],
        templates: Sequence[str],
        read: Callable[[ImageSet, Preprocess], Iterator[torch.Tensor]] = batches,
    ) -> Calibration:
        """The images that `held_out` tells, and the rest."""
        apart = None if images is None else held_out(images)
        if images is None or apart is None or not apart.any():
            return cls(images, None, classes, templates, read)
        return cls(images.take(np.flatnonzero(~apart)), images.take(np.flatnonzero(apart)), classes, templates, read)

    def batches(self, clip: Clip, limit: int) -> Iterator[torch.Tensor]:
        """At most `limit` images, evenly spaced, preprocessed: (batch, 3, height, width)."""
        if self.images is not None:
            yield from self.read(self.images.first_evenly(limit), clip.preprocess)

    def captions(self, label: int) -> list[str]:
        """Every template of a class."""
        return [template.replace("{}", self.classes[label]) for template in self.templates]

    def prompt_batches(self) -> Iterator[list[str]]:
        """The prompts of all classes, at most 512 evenly spaced ones."""
        prompts = [prompt for label in range(len(self.classes)) for prompt in self.captions(label)]
        some = prompts[:: -(-len(prompts) // PROMPTS)]
        for start in range(0, len(some), BATCH):
            yield some[start : start + BATCH]


def held_out(images: ImageSet) -> npt.NDArray[np.bool_]:
    """Which images no quantizer looks at, bool (n,): every fourth, if they are labelled; else none."""
    fourth: npt.NDArray[np.bool_] = np.arange(len(images)) % 4 == 3
    return fourth & (images.labels is not None)
