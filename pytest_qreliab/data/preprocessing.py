"""The two halves of a model's preprocessing: to the size that it sees, and to the numbers that it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from pytest_qreliab.data.images import Corruption

Preprocess = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class SplitPreprocess:
    """A preprocessing cut where images become tensors.

    `steps` are those before; `signature` says what they do, the same in every process. Those after are `rest`.
    """

    steps: Sequence[Callable[[Any], Any]]
    rest: Sequence[Callable[[torch.Tensor], torch.Tensor]]
    signature: str

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """The image as the model sees it, uint8 (height, width, 3)."""
        for step in self.steps:
            image = step(image)
        return np.asarray(image.convert("RGB"))

    def finish(self, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
        """From uint8 (batch, height, width, 3) to what the model takes, float32 (batch, 3, height, width), on a device.

        The bytes travel, a quarter of the floats; the arithmetic is torchvision's.
        """
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(device, non_blocking=True)
        values = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
        for step in self.rest:
            values = step(values) if isinstance(step, Normalize) else torch.stack([step(image) for image in values])
        return values


def split_preprocess(preprocess: Preprocess) -> SplitPreprocess | None:
    """The halves of a torchvision `Compose` with one `ToTensor`, as open_clip's are; None for any other function."""
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
    """The same preprocessing with the image corrupted first, at its own size: for one whose halves are not known."""

    def apply(image: Image.Image) -> torch.Tensor:
        return preprocess(Image.fromarray(corrupt_pixels(np.asarray(image.convert("RGB")), corruption)))

    return apply


def corrupt_pixels(pixels: npt.NDArray[np.uint8], corruption: Corruption) -> npt.NDArray[np.uint8]:
    """The image, uint8 (height, width, 3), corrupted."""
    from pytest_qreliab.data.corruptions import corrupt  # whose filters take a second to import

    return corrupt(pixels, corruption.kind, corruption.severity, corruption.seed)
