"""The hook that transforms and rounds what a layer reads.

A rounded activation is a forward pre-hook on the layer that reads it, so the layer itself stays a plain `nn.Linear` or
`nn.Conv2d`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_qreliab.quantizers.engine import grid, packed_weights
from pytest_qreliab.quantizers.engine.transform import InputTransform, Transform

Round = Callable[[torch.Tensor], torch.Tensor]


class InputQuantizer:
    """The pre-hook that transforms a layer's input, then rounds it."""

    def __init__(self, transform: InputTransform | None = None, round: Round | None = None) -> None:
        self.transform, self.round = transform, round
        self.called = False  # whether the layer has read anything yet

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments that the layer computes with."""
        self.called = True
        x = args[0] if self.transform is None else self.transform.input(layer, args[0])
        return (x if self.round is None else self.round(x), *args[1:])


def takes_each_token_alone(layer: nn.Module) -> bool:
    """Return whether no hook and no rounding of a layer lets one input token change what another becomes.

    That is known of the roundings of this package, and of a library that rounds weights alone.
    """
    if layer._forward_hooks or "forward" in vars(layer):
        return False
    weight = layer._parameters.get("weight")
    if packed_weights.is_library_tensor(weight):
        stored = packed_weights.layer_format(layer)
        if stored is None or stored.activations is not None:
            return False
    hooks = layer._forward_pre_hooks.values()
    return all(isinstance(hook, InputQuantizer) and _by_token(hook.round) for hook in hooks)


def _by_token(rounding: Round | None) -> bool:
    laid = getattr(rounding, "__self__", None)
    static = isinstance(laid, grid.Grid) and laid.scale.numel() == 1
    return rounding is None or static or isinstance(rounding, DynamicQuantizer)


def find_input_quantizer(layer: nn.Module) -> InputQuantizer | None:
    """Return the input quantizer of a layer, or None."""
    return next((hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, InputQuantizer)), None)


def ensure_input_quantizer(layer: nn.Module) -> InputQuantizer:
    """Return the input quantizer of a layer, adding one if need be."""
    hook = find_input_quantizer(layer)
    if hook is None:
        hook = InputQuantizer()
        layer.register_forward_pre_hook(hook)
    return hook


def transform_input(layer: nn.Module, transform: Transform) -> None:
    """Make the layer read a transformed input, in place.

    Its output stays the same.

    Raises:
        ValueError: The transformation shifts the input of a convolution that pads with zeros.
    """
    ensure_input_quantizer(layer).transform = transform
    transform.fold(layer)


def effective_weight(layer: nn.Module) -> torch.Tensor:
    """Return the weight as it acts on the layer's untransformed input.

    It has the shape of the layer's own weight.
    """
    hook = find_input_quantizer(layer)
    if hook is not None and isinstance(hook.transform, Transform):
        return hook.transform.unfold(layer)
    return layer.get_parameter("weight").detach()


@dataclass(frozen=True)
class DynamicQuantizer:
    """A rounding to grids over single tokens.

    A convolution's input has one grid over each image.
    """

    bits: int
    symmetric: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded.

        It is (..., channels) for a grid over each token, or (batch, channels, height, width) for one over each image.
        """
        values = x.flatten(1) if x.ndim == 4 else x.flatten(0, -2)
        bounds = grid.minmax(values, self.bits, self.symmetric)
        return grid.fit_grid(*bounds, self.bits, self.symmetric).round(values).view(x.shape)
