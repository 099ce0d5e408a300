"""Image-caption pairs for light training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.request import Request


@dataclass(frozen=True)
class Pairs:
    """What a run is trained on.

    `pixels` is (n, 3, height, width), `texts` are the distinct captions; `captions` (m,) points into `texts`.
    With `labels`, (n,), they are pairs: n = m, and caption i describes image i. Without, images and captions have
    nothing to do with each other, and there may be none of either.
    """

    pixels: torch.Tensor | None
    texts: tuple[str, ...]
    captions: torch.Tensor
    labels: torch.Tensor | None

    def digest(self) -> str:
        return tensors_digest([self.pixels, self.captions, self.labels], "\0".join(self.texts))


def load(clip: Clip, request: Request, *, paired: bool) -> Pairs:
    """The images, at most as many as the parameters say, and captions, preprocessed; all in memory.

    Pairs are every image with one template of its class: the k-th image of a class with the k-th template, over
    and over. Otherwise the towers in scope get what the ranges are calibrated with, images and prompts.
    """
    calibration = request.require_calibration()
    pixels = labels = None
    if paired or request.scope != "text":
        assert calibration.images is not None
        images = calibration.images.first_evenly(request.parameters.images)
        pixels = torch.cat(list(calibration.read(images, clip.preprocess)))
        if paired:
            assert images.labels is not None
            labels = torch.from_numpy(images.labels)
    captions: list[str] = []
    if labels is not None:
        captions = _captions(calibration, labels.tolist())
    elif request.scope != "vision":
        captions = [caption for batch in calibration.prompt_batches() for caption in batch]
    distinct = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
    places = torch.tensor([distinct[caption] for caption in captions], dtype=torch.int64)
    return Pairs(pixels, tuple(distinct), places, labels)


def _captions(calibration: Calibration, labels: list[int]) -> list[str]:
    seen = [0] * len(calibration.classes)
    captions = []
    for label in labels:
        templates = calibration.captions(label)
        captions.append(templates[seen[label] % len(templates)])
        seen[label] += 1
    return captions


def draw(count: int, batch: int, seed: int, step: int) -> torch.Tensor:
    """The items of one step: a stretch of an endless row of permutations of all, made from the seed alone."""
    batch = min(batch, count)
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    order = torch.cat(
        [torch.randperm(count, generator=torch.Generator().manual_seed(seed + (epoch << 32))) for epoch in epochs]
    )
    return order[first - epochs[0] * count :][:batch]


def tensors_digest(tensors: list[torch.Tensor | None], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none")
        else:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
