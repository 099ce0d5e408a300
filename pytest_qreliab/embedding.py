"""The forward pass: image sets and prompts through a model, into arrays. After this no model is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.data.batches import BATCH, batches
from pytest_qreliab.data.benchmark import Data
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.calibration import fit_logit_scale
from pytest_qreliab.metrics.spectral import high_band_share
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration

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
            _classifier(clip, [data.captions(label) for label in range(len(data.classes))], advance),
            clip.logit_scale,
            clip.logit_bias,
        )


def work(data: Data) -> int:
    """How many images and prompts `embed` counts for a benchmark."""
    images = len(data.in_distribution) + sum(len(images) for images in data.ood.values())
    return images + len(data.classes) * len(data.templates)


def calibration(data: Data) -> Calibration:
    """A benchmark's calibration images, if it has any, split, and its classes and templates."""
    return Calibration.split(data.calibration, data.classes, data.templates)


def fitted_logit_scale(clip: Clip, calibration: Calibration) -> float:
    """The logit scale that fits the held-out calibration images best, by NLL.

    Raises InputError where the features hold NaN or infinity.
    """
    images = calibration.held_out
    assert images is not None
    assert images.labels is not None
    with full_precision():
        features = torch.cat([clip.encode_image(batch).double().cpu() for batch in batches(images, clip.preprocess)])
        prompts = [calibration.captions(label) for label in range(len(calibration.classes))]
        classifier = torch.from_numpy(_classifier(clip, prompts)).double()
    cosines = F.normalize(features, dim=-1) @ classifier.T
    if not bool(cosines.isfinite().all()):
        raise InputError(f"{clip.name}: NaN or infinity in the features, so that no logit scale can be fitted")
    return fit_logit_scale(cosines.numpy(), images.labels)


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
    for batch in batches(images, clip.preprocess):
        encoded, patch_map = clip.encode_image_with_map(batch)
        features.append(encoded.float().cpu())
        if patch_map is not None:
            shares.append(high_band_share(patch_map))
        advance(len(batch))
    return ImageEmbeddings(torch.cat(features).numpy(), torch.cat(shares).numpy() if shares else None)


def _classifier(
    clip: Clip, captions: Sequence[Sequence[str]], advance: Advance = lambda done: None
) -> npt.NDArray[np.float32]:
    """One unit vector per class: the mean over its captions of their unit features, normalised again."""
    prompts = [prompt for of_class in captions for prompt in of_class]
    encoded = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        encoded.append(F.normalize(clip.encode_text(batch).float(), dim=-1).cpu())
        advance(len(batch))
    by_class = torch.cat(encoded).reshape(len(captions), len(captions[0]), -1)
    classifier: npt.NDArray[np.float32] = F.normalize(by_class.mean(dim=1), dim=-1).numpy()
    return classifier
