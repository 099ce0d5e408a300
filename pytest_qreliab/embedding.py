"""The forward pass: image sets and prompts through a model, into arrays. After this no model is needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from pytest_qreliab.data.benchmark import Data
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.metrics.spectral import high_band_share
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration

# Fixed, because the same image can come out differently in the last digit in a batch of another size.
BATCH = 64
BATCHES_AHEAD = 2
CALIBRATION_PROMPTS = 512

Advance = Callable[[int], None]


@dataclass(frozen=True)
class ImageEmbeddings:
    """Of one image set: features, float32 (n, dim), not normalised; high-band energy share, float64 (n,), or None."""

    features: npt.NDArray[np.float32]
    high_band: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Embeddings:
    """Of one benchmark: `classifier` is float32 (classes, dim), unit rows; `labels` int64 (n,) index it."""

    in_distribution: ImageEmbeddings
    labels: npt.NDArray[np.int64]
    ood: Mapping[str, ImageEmbeddings]
    classifier: npt.NDArray[np.float32]
    logit_scale: float
    logit_bias: float


def embed(clip: Clip, data: Data, advance: Advance) -> Embeddings:
    """All of a benchmark through one model. `advance` is told of every batch of images or prompts done."""
    labels = data.in_distribution.labels
    assert labels is not None
    with full_precision():
        return Embeddings(
            _encode_images(clip, data.in_distribution, advance),
            labels,
            {name: _encode_images(clip, images, advance) for name, images in data.ood.items()},
            _classifier(clip, data, advance),
            clip.logit_scale,
            clip.logit_bias,
        )


def work(data: Data) -> int:
    """How many images and prompts `embed` counts for a benchmark."""
    images = len(data.in_distribution) + sum(len(images) for images in data.ood.values())
    return images + len(data.prompts())


def calibration(data: Data) -> Calibration:
    """A benchmark's calibration images, if it has any, and its prompts, at most 512 evenly spaced ones."""
    images = data.calibration
    prompts = data.prompts()
    some = [prompts[i] for i in range(0, len(prompts), -(-len(prompts) // CALIBRATION_PROMPTS))]
    return Calibration(
        lambda clip: () if images is None else _batches(images, clip.preprocess),
        [some[start : start + BATCH] for start in range(0, len(some), BATCH)],
    )


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products in true float32 on a GPU: TF32 keeps 10 bits, coarser than what is to be measured."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _encode_images(clip: Clip, images: ImageSet, advance: Advance) -> ImageEmbeddings:
    features, shares = [], []
    for batch in _batches(images, clip.preprocess):
        encoded, patch_map = clip.encode_image_with_map(batch)
        features.append(encoded.float().cpu())
        if patch_map is not None:
            shares.append(high_band_share(patch_map))
        advance(len(batch))
    return ImageEmbeddings(torch.cat(features).numpy(), torch.cat(shares).numpy() if shares else None)


def _classifier(clip: Clip, data: Data, advance: Advance) -> npt.NDArray[np.float32]:
    """One unit vector per class: the mean over templates of the unit prompt features, normalised again."""
    prompts = data.prompts()
    encoded = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        encoded.append(F.normalize(clip.encode_text(batch).float(), dim=-1).cpu())
        advance(len(batch))
    by_class = torch.cat(encoded).reshape(len(data.classes), len(data.templates), -1)
    classifier: npt.NDArray[np.float32] = F.normalize(by_class.mean(dim=1), dim=-1).numpy()
    return classifier


def _batches(images: ImageSet, preprocess: Callable[[Image.Image], torch.Tensor]) -> Iterator[torch.Tensor]:
    """Preprocessed batches in order; the next ones are decoded while the model works on this one."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        ahead: deque[list[Future[torch.Tensor]]] = deque()
        try:
            for start in range(0, len(images), BATCH):
                indices = range(start, min(start + BATCH, len(images)))
                ahead.append([pool.submit(lambda i: preprocess(images.load(i)), i) for i in indices])
                if len(ahead) > BATCHES_AHEAD:
                    yield torch.stack([future.result() for future in ahead.popleft()])
            while ahead:
                yield torch.stack([future.result() for future in ahead.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)
