"""The data of a training run, and the batch of each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pytest_qreliab.hashing import digest, tensor_digest
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import SEED, Calibration
from pytest_qreliab.quantizers.request import Request

# What a loss compares: features of each tower in scope by itself, similarities of images and captions, or those of
# pairs that belong together.
Comparison = Literal["features", "similarities", "pairs"]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Images and captions, which are pairs if there are labels.

    Otherwise they have nothing to do with each other.
    """

    pixels: torch.Tensor | None  # (n, 3, height, width), preprocessed; None: there are no images
    texts: tuple[str, ...]  # the distinct captions; may be empty
    captions: torch.Tensor  # (m,), indices of `texts`; of pairs m is n, and caption i describes image i
    labels: torch.Tensor | None  # (n,), equal for pairs whose captions describe both images

    def digest(self) -> str:
        """Return a digest of all of it."""
        tensors = (self.pixels, self.captions, self.labels)
        return digest(self.texts, [None if tensor is None else tensor_digest(tensor) for tensor in tensors])


def load(clip: Clip, request: Request, compared: Comparison) -> Pairs:
    """Load the training data into memory, preprocessed.

    Features are compared of the images and prompts that ranges are calibrated with. Similarities and pairs take the
    image-caption pairs of the calibration data. If there are none, similarities are those of the same images and
    prompts, which need not belong together, and pairs are every image with one template of its class: the k-th image
    of a class with the k-th template, over and over.

    Args:
        clip: The model, for its preprocessing.
        request: Gives the calibration data, the scope and the largest number of images.
        compared: What the loss compares. Features are loaded for the towers in scope alone.

    Raises:
        ValueError: The calibration data have no images or, for pairs, neither captions nor labels.
    """
    calibration, scope = request.require_calibration(), request.scope
    images = calibration.images
    if compared != "features":
        images = calibration.pairs or images
    if images is not None:
        images = images.sampled(request.parameters.images, SEED)
    elif compared != "features" or scope != "text":
        raise ValueError("training needs calibration images")
    captions: list[str] = []
    labels = None
    if compared != "features" and images is not None and images.captions is not None:
        captions = list(images.captions)
    elif compared == "pairs" and images is not None:
        if images.labels is None:
            raise ValueError("training on pairs needs captions or labels of calibration images")
        labels = torch.from_numpy(images.labels)
        captions = _class_captions(calibration, labels.tolist())
    elif compared == "similarities" or scope != "vision":
        captions = [caption for batch in calibration.prompt_batches() for caption in batch]
    distinct = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
    places = torch.tensor([distinct[caption] for caption in captions], dtype=torch.int64)
    if compared == "pairs" and labels is None:
        labels = places
    pixels = None
    if images is not None and (compared != "features" or scope != "text"):
        pixels = torch.cat(list(calibration.read(images, clip.preprocess)))
    return Pairs(pixels=pixels, texts=tuple(distinct), captions=places, labels=labels)


def _class_captions(calibration: Calibration, labels: list[int]) -> list[str]:
    """Return a caption for each label, a class's templates in turn."""
    used = [0] * len(calibration.classes)
    captions = []
    for label in labels:
        templates = calibration.captions(label)
        captions.append(templates[used[label] % len(templates)])
        used[label] += 1
    return captions


def draw(count: int, batch: int, seed: int, step: int) -> torch.Tensor:
    """Return the items of one step.

    They are a stretch of an endless row of permutations of all items.

    Args:
        count: The number of items.
        batch: The number of items of a step, if there are as many.
        seed: Alone decides the permutations.
        step: The step, from 0.

    Returns:
        Indices of items, shape (min(batch, count),).
    """
    batch = min(batch, count)
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    order = torch.cat(
        [torch.randperm(count, generator=torch.Generator().manual_seed(seed + (epoch << 32))) for epoch in epochs]
    )
    return order[first - epochs[0] * count :][:batch]
