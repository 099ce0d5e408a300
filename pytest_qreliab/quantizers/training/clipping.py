"""Modules that learn OmniQuant's two changes of a frozen layer: clipping of its weight, scale and shift of its input.

Shao et al. 2024 (arXiv 2308.13137) call them learnable weight clipping and learnable equivalent transformation.
"""

from __future__ import annotations

import torch
from torch import nn

from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import Grid, Scheme
from pytest_qreliab.quantizers.engine.transform import Transform


class LearnedTransform(nn.Module):
    """A learned scale and shift of channels, for the layers that read them."""

    scale: torch.Tensor  # (channels,), the first one
    shift: torch.Tensor  # (channels,), the first one
    unit: torch.Tensor  # (channels,), the shift is learned in multiples of it

    def __init__(self, lowest: torch.Tensor, highest: torch.Tensor, scale: torch.Tensor, *, shift: bool) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", (lowest + highest) / 2 if shift else None)
        self.register_buffer("unit", (highest - lowest) / 2)
        self.log_scale = nn.Parameter(torch.zeros_like(scale))
        self.moved = nn.Parameter(torch.zeros_like(scale)) if shift else None

    def now(self) -> Transform:
        """Return the transformation as it is now; differentiable."""
        shift = None if self.moved is None else self.shift + self.moved * self.unit
        return Transform(self.scale * self.log_scale.exp(), shift)

    def input(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return what the transformed layer reads in place of `x`."""
        return self.now().input(layer, x)


class ClippedWeight(nn.Module):
    """The parametrization of a frozen weight with learned clipping.

    The weight W is transformed to W'. The range of its grids ends at sigmoid(low) min(W') and sigmoid(high) max(W'),
    with one low and one high for each grid. They start at the range of least squared error.
    """

    start: torch.Tensor  # (2, rows, 1), the first low and high

    def __init__(self, layer: nn.Module, scheme: Scheme, transform: LearnedTransform | None = None) -> None:
        super().__init__()
        self.transform, self._scheme = transform, scheme
        self._layer = (layer,)  # not a submodule: it holds this one
        with torch.no_grad():
            rows = grid.to_rows(self._transformed(layer.get_parameter("weight")), scheme.granularity)
            ends = torch.stack(grid.mse(rows, scheme)) / torch.stack(grid.minmax(rows, scheme))
        self.register_buffer("start", torch.logit(ends.nan_to_num(1.0).clamp(0.01, 0.999)))
        self.ends = nn.Parameter(torch.zeros_like(self.start))

    def _transformed(self, weight: torch.Tensor) -> torch.Tensor:
        return weight if self.transform is None else self.transform.now().fold_weight(self._layer[0], weight)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight, transformed and rounded.

        Gradients pass straight through the rounding, inside the range to the weight and beyond it to the range.
        """
        weight = self._transformed(weight)
        rows = grid.to_rows(weight, self._scheme.granularity)
        low, high = (self.start + self.ends).sigmoid() * torch.stack(grid.minmax(rows, self._scheme))
        laid = self._scheme.fit(low, high)
        return grid.from_rows(_round_through(rows, laid), weight, self._scheme.granularity)


def _round_through(values: torch.Tensor, laid: Grid) -> torch.Tensor:
    """Return values rounded to a grid, with gradients to them and to its scale."""
    units = (values / laid.scale).clamp(laid.low, laid.high)  # type: ignore[arg-type]
    return (laid.to_units(units.detach().clone()) + (units - units.detach())) * laid.scale


class ShiftedBias(nn.Module):
    """The parametrization of a frozen bias for a shifted input."""

    def __init__(self, layer: nn.Module, transform: LearnedTransform) -> None:
        super().__init__()
        self.transform = transform
        self._layer, self._weight = (layer,), layer.get_parameter("weight").detach()

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        """Return the bias that goes with the shifted input."""
        return bias + self.transform.now().bias_gain(self._layer[0], self._weight)
