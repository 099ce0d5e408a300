"""Calibration data: images and prompts that quantizers may look at.

Nothing is measured on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from pytest_qreliab.data.batches import BATCH, batches
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.preprocessing import Preprocess
from pytest_qreliab.data.sampling import stratified_sample
from pytest_qreliab.models import text_ends
from pytest_qreliab.models.clip import Clip

PROMPTS = 512  # the most that a quantizer looks at
SEED = 0  # of what is drawn: the same data give the same images and prompts

ReadBatches = Callable[[ImageSet, Preprocess], Iterator[torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images and prompts that a quantizer may look at."""

    images: ImageSet | None  # to set ranges and to train on; labels, if any, index `classes`; None: there are none
    held_out: ImageSet | None  # labelled images for fitting the logit scale, which no quantizer looks at
    classes: Sequence[str]
    templates: Sequence[str]  # of prompts, with {} for the class
    pairs: ImageSet | None = None  # images with captions, which take the place of the prompts of classes
    read: ReadBatches = batches  # returns the preprocessed batches of images, (batch, 3, height, width)

    @classmethod
    def split(
        cls,
        images: ImageSet | None,
        classes: Sequence[str],
        templates: Sequence[str],
        read: ReadBatches = batches,
        pairs: ImageSet | None = None,
    ) -> Calibration:
        """Return calibration data with the images that `held_out` picks set apart.

        Without images of their own the data have those of the pairs, none of which is set apart.
        """
        apart = None if images is None else held_out(images)
        rest = pairs if images is None else images
        if images is None or apart is None or not apart.any():
            apart_images = None
        else:
            rest, apart_images = images.take(np.flatnonzero(~apart)), images.take(np.flatnonzero(apart))
        return cls(images=rest, held_out=apart_images, classes=classes, templates=templates, pairs=pairs, read=read)

    def batches(self, clip: Clip, limit: int) -> Iterator[torch.Tensor]:
        """Yield preprocessed images, (batch, 3, height, width).

        They are drawn at random, of each class in proportion, and at most `limit`.
        """
        if self.images is not None:
            yield from self.read(self.images.sampled(limit, SEED), clip.preprocess)

    def captions(self, label: int) -> list[str]:
        """Return every template with the name of a class."""
        return [template.replace("{}", self.classes[label]) for template in self.templates]

    def prompt_batches(self) -> Iterator[list[str]]:
        """Yield the captions of pairs, else the prompts of all classes.

        They are 512 at most, drawn at random, of each class in proportion.
        """
        if self.pairs is None:
            prompts = [prompt for label in range(len(self.classes)) for prompt in self.captions(label)]
            classes = np.repeat(np.arange(len(self.classes)), len(self.templates))
        else:
            prompts, classes = list(dict.fromkeys(self.pairs.known_captions)), None
        drawn = stratified_sample(len(prompts), classes, min(PROMPTS, len(prompts)), SEED)
        some = [prompts[place] for place in drawn.tolist()]
        for start in range(0, len(some), BATCH):
            yield some[start : start + BATCH]

    def text_passes(self, clip: Clip, size: int = BATCH) -> list[Callable[[], torch.Tensor]]:
        """Return functions that encode the prompts, for whoever watches the text tower.

        If a feature does not depend on what stands behind the end of a text, the tower does not see it: the padding is
        most of what it would read. Texts of one length then go together.

        Args:
            clip: The model.
            size: The most prompts that a function encodes.

        Returns:
            Functions that each encode some of the prompts to features (prompts, dim).
        """
        prompts = [prompt for batch in self.prompt_batches() for prompt in batch]
        end = text_ends.find_text_end(clip, prompts) if prompts else None
        if end is None:
            starts = range(0, len(prompts), size)
            return [partial(clip.encode_text, prompts[start : start + size]) for start in starts]
        tokens = clip.tokenizer(prompts)
        lengths = end.lengths(tokens)
        return [
            partial(text_ends.encode_cut, clip, text_ends.take_texts(tokens, rows), length)
            for length in sorted(set(lengths.tolist()))
            for rows in (lengths == length).nonzero().flatten().split(size)
        ]


def held_out(images: ImageSet) -> npt.NDArray[np.bool_]:
    """Return which images no quantizer looks at, bool (n,).

    These are a quarter of the images, drawn at random, of each class in proportion. There are none without labels.
    """
    apart = np.zeros(len(images), dtype=bool)
    if images.labels is not None:
        apart[stratified_sample(len(images), images.labels, len(images) // 4, SEED)] = True
    return apart
