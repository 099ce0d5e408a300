"""The two parts of a model's preprocessing: to the size that it sees, and to the numbers that it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from pytest_qreliab.data.corruptions import corrupt
from pytest_qreliab.data.images import Corruption, Pixels

Preprocess = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class SplitPreprocess:
    """A preprocessing that is cut where images become tensors."""

    steps: Sequence[Callable[[Any], Any]]  # on images
    rest: Sequence[Callable[[torch.Tensor], torch.Tensor]]  # on tensors
    signature: str  # says what `steps` do, the same in every process

    def pixels(self, image: Image.Image) -> Pixels:
        """Return the image as the model sees it, uint8 (height, width, 3)."""
        for step in self.steps:
            image = step(image)
        return np.asarray(image.convert("RGB"))

    def finish(self, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Turn pixels into the numbers that the model takes.

        The bytes travel to the device, a quarter of the floats. The arithmetic is torchvision's.

        Args:
            pixels: uint8 (batch, height, width, 3).
            device: Where the result goes.

        Returns:
            float32 (batch, 3, height, width).
        """
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(device, non_blocking=True)
        values = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
        for step in self.rest:
            values = step(values) if isinstance(step, Normalize) else torch.stack([step(image) for image in values])
        return values


def split_preprocess(preprocess: Preprocess) -> SplitPreprocess | None:
    """Cut a torchvision `Compose` at its only `ToTensor`, which open_clip's have; return None for other functions."""
    steps = list(preprocess.transforms) if isinstance(preprocess, Compose) else []
    places = [place for place, step in enumerate(steps) if isinstance(step, ToTensor)]
    if len(places) != 1:
        return None
    before = steps[: places[0]]
    return SplitPreprocess(before, steps[places[0] + 1 :], "; ".join(map(_signature, before)))


def _signature(step: Any) -> str:
    name = getattr(step, "__qualname__", None) or type(step).__qualname__
    module = getattr(step, "__module__", None) or type(step).__module__
    return f"{module}.{name} {re.sub(r' at 0x[0-9a-f]+', '', repr(step))}"


def with_corruption(preprocess: Preprocess, corruption: Corruption) -> Preprocess:
    """Return a preprocessing that corrupts the image first, at its own size, for one that cannot be split."""

    def apply(image: Image.Image) -> torch.Tensor:
        return preprocess(Image.fromarray(corrupt_pixels(np.asarray(image.convert("RGB")), corruption)))

    return apply


def corrupt_pixels(pixels: Pixels, corruption: Corruption) -> Pixels:
    """Return the corrupted image, uint8 (height, width, 3) like `pixels`."""
    return corrupt(pixels, corruption.kind, corruption.severity, corruption.seed)
