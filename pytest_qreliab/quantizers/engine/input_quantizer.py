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

from pytest_qreliab.quantizers.engine import grid, number_rounding, packed_weights
from pytest_qreliab.quantizers.engine.grid import Grid, Scheme
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
    static = isinstance(laid, Grid) and laid.scale.numel() == 1
    if isinstance(rounding, BlockQuantizer):  # a scale for all blocks must be given, and not come from them
        return rounding.tensor_scale is not None or rounding.scheme.number.scale == "e8m0"
    return rounding is None or static or isinstance(rounding, DynamicQuantizer | SignQuantizer)


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

    scheme: Scheme
    share: float = 1.0  # of the range of the token or image, beyond which it is clipped

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded.

        It is (..., channels) for a grid over each token, or (batch, channels, height, width) for one over each image.
        """
        values = _alone(x)
        lowest, highest = grid.minmax(values, self.scheme)
        return self.scheme.fit(lowest * self.share, highest * self.share).round(values).view(x.shape)


class SignQuantizer:
    """A rounding to the signs of single tokens, each times its mean magnitude.

    A convolution's input has one magnitude for each image.
    """

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded, in the shapes of `DynamicQuantizer`."""
        return number_rounding.round_to_signs(_alone(x)).view(x.shape)


@dataclass(frozen=True)
class BlockQuantizer:
    """A rounding of blocks of channels, of a token or of a place of a map, each with a scale of its own."""

    scheme: Scheme
    tensor_scale: torch.Tensor | None = None  # a scalar, of the type that has one for all blocks

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded, (..., channels) or (batch, channels, height, width)."""
        channels_last = x.movedim(1, -1) if x.ndim == 4 else x
        tokens = channels_last.flatten(0, -2)
        rows = grid.to_rows(tokens, self.scheme.granularity)
        laid = self.scheme.fit_values(rows, grid.minmax, self.tensor_scale)
        rounded = grid.from_rows(laid.round(rows), tokens, self.scheme.granularity).view(channels_last.shape)
        return rounded.movedim(-1, 1) if x.ndim == 4 else rounded


def _alone(x: torch.Tensor) -> torch.Tensor:
    """Return a row for each token, or for each image of (batch, channels, height, width)."""
    return x.flatten(1) if x.ndim == 4 else x.flatten(0, -2)


def without_ranges(scheme: Scheme, dynamic: bool) -> Round | None:
    """Return a rounding that takes its ranges from each input; None if the scheme needs ranges from before.

    Args:
        scheme: The values that the input may be rounded to.
        dynamic: Take the ranges of a scheme that could have static ones from each token.
    """
    number = scheme.number
    if number.scale == "none":
        return Grid(torch.ones(()), -number.largest, number.largest, number).round
    if number.block and number.scale == "e8m0":
        return BlockQuantizer(scheme)
    return DynamicQuantizer(scheme) if dynamic and not number.block else None


def from_bounds(scheme: Scheme, lowest: torch.Tensor, highest: torch.Tensor) -> Round:
    """Return the rounding over a static range.

    Args:
        scheme: The values that the input may be rounded to.
        lowest: The lower end of the range, a scalar.
        highest: The upper end, a scalar.
    """
    if scheme.number.block:
        return BlockQuantizer(
            scheme, number_rounding.tensor_scale(torch.maximum(lowest.abs(), highest.abs()), scheme.number)
        )
    return scheme.fit(lowest, highest).round
