"""Calibration data: images and prompts, none of which are measured on, that a quantizer may look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from pytest_qreliab.data.batches import BATCH, batches
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.models.clip import Clip

PROMPTS = 512


@dataclass(frozen=True)
class Calibration:
    """`images` set ranges and train; their labels, if they have any, index `classes`.

    `held_out` are labelled images on which nothing but the logit scale is fitted. Either is None where the
    benchmark has none. Prompts are the classes in the templates.
    """

    images: ImageSet | None
    held_out: ImageSet | None
    classes: Sequence[str]
    templates: Sequence[str]

    @classmethod
    def split(cls, images: ImageSet | None, classes: Sequence[str], templates: Sequence[str]) -> Calibration:
        """Every fourth image is held out, if they are labelled."""
        if images is None or images.labels is None or len(images) < 4:
            return cls(images, None, classes, templates)
        fourth = torch.arange(len(images)) % 4 == 3
        rest, held_out = (images.take(torch.nonzero(part).flatten().numpy()) for part in (~fourth, fourth))
        return cls(rest, held_out, classes, templates)

    def batches(self, clip: Clip, limit: int) -> Iterator[torch.Tensor]:
        """At most `limit` images, evenly spaced, preprocessed: (batch, 3, height, width)."""
        if self.images is not None:
            yield from batches(self.images.limited(limit), clip.preprocess)

    def captions(self, label: int) -> list[str]:
        """Every template of a class."""
        return [template.replace("{}", self.classes[label]) for template in self.templates]

    def prompt_batches(self) -> Iterator[list[str]]:
        """The prompts of all classes, at most 512 evenly spaced ones."""
        prompts = [prompt for label in range(len(self.classes)) for prompt in self.captions(label)]
        some = prompts[:: -(-len(prompts) // PROMPTS)]
        for start in range(0, len(some), BATCH):
            yield some[start : start + BATCH]
