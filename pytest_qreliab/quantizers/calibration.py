"""Calibration data: the images and prompts that set activation ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from pytest_qreliab.models.clip import Clip


@dataclass(frozen=True)
class Calibration:
    """`images(clip)` yields preprocessed batches (batch, 3, height, width); `prompts` are batches of texts."""

    images: Callable[[Clip], Iterable[torch.Tensor]]
    prompts: Sequence[Sequence[str]]
