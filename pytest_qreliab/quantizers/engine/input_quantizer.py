"""Round and transform the inputs of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.transform import Transform

Round = Callable[[torch.Tensor], torch.Tensor]


class InputQuantizer:
    """Pre-hook that transforms a layer's input, and rounds it. `called` says that it has run."""

    def __init__(self, transform: Transform | None = None, round: Round | None = None) -> None:
        self.transform, self.round, self.called = transform, round, False

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.called = True
        x = args[0] if self.transform is None else self.transform.input(layer, args[0])
        return (x if self.round is None else self.round(x), *args[1:])


def input_quantizer(layer: nn.Module) -> InputQuantizer:
    """The layer's own, which is put there where there is none yet."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, InputQuantizer):
            return hook
    hook = InputQuantizer()
    layer.register_forward_pre_hook(hook)
    return hook


def transform(layer: nn.Module, by: Transform) -> None:
    """Make the layer read a transformed input, with the same output."""
    input_quantizer(layer).transform = by
    by.fold(layer)


def effective_weight(layer: nn.Module) -> torch.Tensor:
    """The layer's weight as it acts on its untransformed input."""
    by = next((h.transform for h in layer._forward_pre_hooks.values() if isinstance(h, InputQuantizer)), None)
    return layer.get_parameter("weight").detach() if by is None else by.unfold(layer)


@dataclass(frozen=True)
class Dynamic:
    """Rounds to a grid laid over each token, or over each image where the layer is a convolution."""

    bits: int
    symmetric: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        values = x.flatten(1) if x.ndim == 4 else x.flatten(0, -2)
        return (
            grid.fit_grid(*grid.minmax(values, self.bits, self.symmetric), self.bits, self.symmetric)
            .round(values)
            .view(x.shape)
        )
