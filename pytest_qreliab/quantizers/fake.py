"""The one mechanism that puts quantization into a model: rounded weights and rounded layer inputs, in float32.

Weights are rounded once, in place. Activations are rounded by a forward pre-hook on the layer that reads
them, so the layer itself stays a plain `nn.Linear` or `nn.Conv2d`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.unpack import in_scope, unpack

Layers = dict[str, nn.Module]


def levels(bits: int) -> int:
    """Largest integer q of the symmetric grid -q..q: 127 for 8 bits, 1 for 2 bits."""
    return int(2 ** (bits - 1)) - 1


def scale_for(largest: torch.Tensor, bits: int) -> torch.Tensor:
    """Step size that puts `largest`, a magnitude, on the last level; 1 where it is 0. NaN stays NaN."""
    return torch.where(largest == 0, torch.ones_like(largest), largest / levels(bits))


def round_to_grid(x: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest multiple of `scale` (ties to even) within -q..q. NaN stays NaN, infinities saturate."""
    q = levels(bits)
    return x.div(scale).round_().clamp_(-q, q).mul_(scale)


def prepare(clip: Clip, scope: str) -> tuple[Clip, Layers]:
    """A copy of the model, its towers in `scope` unpacked, and their weight layers by name."""
    clip = clip.copy()
    unpack(clip.module, scope)
    layers: Layers = {
        name: module
        for name, module in clip.module.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and in_scope(name, scope)
    }
    if not layers:
        raise InputError(f"{clip.name}: no Linear or convolution to quantize in scope {scope!r}")
    return clip, layers


class InputRange:
    """Pre-hook that keeps the largest magnitude of a layer's input, over all calls, as a scalar tensor."""

    def __init__(self) -> None:
        self.largest: torch.Tensor | None = None

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        seen = args[0].detach().abs().amax()
        self.largest = seen if self.largest is None else torch.maximum(self.largest, seen)


class InputQuantizer:
    """Pre-hook that rounds a layer's input to `bits` at a fixed scale. `called` says that it has run."""

    def __init__(self, scale: torch.Tensor, bits: int) -> None:
        self.scale, self.bits, self.called = scale, bits, False

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.called = True
        return (round_to_grid(args[0], self.scale, self.bits), *args[1:])


def input_ranges(clip: Clip, layers: Layers, scope: str, calibration: Calibration) -> dict[str, torch.Tensor]:
    """Largest input magnitude of every layer that the calibration images and prompts reach."""
    ranges = {name: InputRange() for name in layers}
    handles = [layer.register_forward_pre_hook(ranges[name]) for name, layer in layers.items()]
    if scope != "text":
        for images in calibration.images(clip):
            clip.encode_image(images)
    if scope != "vision":
        for prompts in calibration.prompts:
            clip.encode_text(prompts)
    for handle in handles:
        handle.remove()
    return {name: seen.largest for name, seen in ranges.items() if seen.largest is not None}
