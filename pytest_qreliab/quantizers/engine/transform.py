"""Equivalent transformations of a layer's input, undone in its weight.

In full precision they are exact. A layer that computes `W x + b` is made to compute `W' x' + b'` with
`x' = R((x - shift) / scale)`. R is orthogonal, `W' = R(W * scale)` along the input channels, and `b' = b + W shift`.

The gain is that x' or W' lies better on a grid than x or W. In a deployed model the division and the shift go into the
norm before the layer. They cost an operation if there is none, and so does the rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class Rotation:
    """An orthogonal map of vectors of length a * b.

    It is random signs, then the Kronecker product of two matrices. Two small products stand in place of one large.
    """

    left: torch.Tensor  # (a, a)
    right: torch.Tensor  # (b, b)
    signs: torch.Tensor  # (a * b,), each 1 or -1

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with its last axis rotated."""
        turned: torch.Tensor = self.left @ self._folded(x * self.signs) @ self.right.T
        return turned.flatten(-2)

    def undo(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with its last axis rotated back."""
        turned: torch.Tensor = self.left.T @ self._folded(x) @ self.right
        return turned.flatten(-2) * self.signs

    def to(self, device: torch.device) -> Rotation:
        """Return the rotation on a device."""
        return Rotation(self.left.to(device), self.right.to(device), self.signs.to(device))

    def _folded(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:-1], len(self.left), len(self.right))


class InputTransform(Protocol):
    """A transformation of what a layer reads, fixed or still being learned."""

    def input(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return the transformed input, in the shape of `x`."""


@dataclass(frozen=True)
class Transform:
    """A division, a shift and a rotation of what a layer reads.

    None stands for none of that kind.
    """

    scale: torch.Tensor | None = None  # (input channels,)
    shift: torch.Tensor | None = None  # (input channels,)
    rotation: Rotation | None = None  # of the channels of each group

    def input(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return the transformed input, in the shape of `x`."""
        column = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
        if self.shift is not None:
            x = x - self.shift.view(column)
        if self.scale is not None:
            x = x / self.scale.view(column)
        if self.rotation is not None:
            if not isinstance(layer, nn.Conv2d):
                return self.rotation.apply(x)
            channels = x.movedim(1, -1)
            grouped = channels.reshape(*channels.shape[:-1], layer.groups, -1)
            x = self.rotation.apply(grouped).flatten(-2).movedim(-1, 1)
        return x

    @torch.no_grad()
    def fold(self, layer: nn.Module) -> None:
        """Undo the transformation in the layer's weight and bias, in place.

        Raises:
            ValueError: The input of a convolution that pads with zeros is to be shifted.
        """
        weight = layer.get_parameter("weight")
        if self.shift is not None:
            if any(getattr(layer, "padding", ())):
                raise ValueError("a shift cannot be folded into a convolution that pads with zeros")
            bias = self.bias_gain(layer, weight)
            if layer.bias is None:
                layer.bias = nn.Parameter(bias, requires_grad=False)
            else:
                layer.get_parameter("bias").add_(bias)
        weight.copy_(self.fold_weight(layer, weight))

    def bias_gain(self, layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
        """Return what the shift adds to the bias, (out,); differentiable.

        Args:
            layer: The layer that reads the shifted input.
            weight: Its weight before the transformation.
        """
        if self.shift is None:
            return weight.new_zeros(len(weight))
        summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
        return (summed * _per_input(self.shift, layer, weight, flat=True)).sum(1)

    def fold_weight(self, layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight for the transformed input; differentiable."""
        if self.scale is not None:
            weight = weight * _per_input(self.scale, layer, weight)
        if self.rotation is not None:
            weight = self.rotation.apply(weight.movedim(1, -1)).movedim(-1, 1)
        return weight

    def unfold(self, layer: nn.Module) -> torch.Tensor:
        """Return the weight that would act on the untransformed input."""
        weight = layer.get_parameter("weight").detach()
        if self.rotation is not None:
            weight = self.rotation.undo(weight.movedim(1, -1)).movedim(-1, 1)
        return weight if self.scale is None else weight / _per_input(self.scale, layer, weight)


def _per_input(values: torch.Tensor, layer: nn.Module, weight: torch.Tensor, *, flat: bool = False) -> torch.Tensor:
    """Return values per input channel, in a shape that multiplies the weight."""
    groups: int = getattr(layer, "groups", 1)
    per_output = values.view(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
    return per_output if flat else per_output.reshape(per_output.shape + (1,) * (weight.ndim - 2))


def hadamard(size: int, seed: int = 0) -> Rotation | None:
    """Return a randomised Hadamard rotation.

    It is Sylvester's matrix for the power of two in the size and a cosine transform for the odd part, for which no
    Hadamard matrix need exist (768 = 256 * 3, 1152 = 128 * 9).

    Args:
        size: The length of the vectors to rotate.
        seed: Draws the signs.

    Returns:
        The rotation, or None if no power of two above 4 divides the size.
    """
    two = size & -size
    if two < 8:
        return None
    a = 2 ** ((two.bit_length() - 1) // 2)
    odd = size // two
    index = torch.arange(odd, dtype=torch.float64)
    cosines = torch.cos(torch.pi * (2 * index + 1) * index[:, None] / (2 * odd)) * (2 / odd) ** 0.5
    cosines[0] *= 0.5**0.5
    signs = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    return Rotation(_sylvester(a).float(), torch.kron(_sylvester(two // a), cosines).float(), signs)


def _sylvester(size: int) -> torch.Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    while len(matrix) < size:
        matrix = torch.kron(matrix, pair)
    return matrix
