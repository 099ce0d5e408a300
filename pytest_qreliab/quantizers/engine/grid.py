"""Grids: their levels, their ranges, and the values that share one.

A range rule maps values of shape (rows, n), with one grid per row, to the lowest and highest value that the grid of
each row reaches. The same rules serve weights, whose rows are channels or groups, and activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

Granularity = Literal["tensor", "channel"] | int
Bounds = tuple[torch.Tensor, torch.Tensor]
RangeRule = Callable[[torch.Tensor, int, bool], Bounds]

CANDIDATES = 100  # shrink factors of a range that `mse` tries


def levels(bits: int) -> int:
    """Return the largest integer q of the symmetric grid -q..q.

    It is 127 for 8 bits and 1 for 2 bits.
    """
    return int(2 ** (bits - 1)) - 1


@dataclass(frozen=True)
class Grid:
    """The multiples of a scale within bounds; zero is always one.

    An asymmetric grid is 0..2^bits-1 around its zero point z: `low` is -z and `high` is 2^bits-1-z.
    """

    scale: torch.Tensor  # broadcasts with the values
    low: torch.Tensor | float  # in steps
    high: torch.Tensor | float  # in steps

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest points of the grid, ties to even.

        NaN stays NaN, and infinities saturate.
        """
        return x.div(self.scale).round_().clamp_(self.low, self.high).mul_(self.scale)  # type: ignore[arg-type]


def fit_grid(lowest: torch.Tensor, highest: torch.Tensor, bits: int, symmetric: bool) -> Grid:
    """Return the grid of a bit width that covers a range.

    Args:
        lowest: The lower ends of the ranges, one per grid.
        highest: The upper ends, in the same shape.
        bits: The width of the grid.
        symmetric: Use the levels -q..q; otherwise 2^bits levels around a zero point.

    Returns:
        The grid, with a scale in the shape of the bounds. It is 1 for a range of nothing but 0 and NaN for one with
        NaN.
    """
    if symmetric:
        q = levels(bits)
        return Grid(_step(torch.maximum(lowest.abs(), highest.abs()), q), -q, q)
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    last = 2**bits - 1
    scale = _step(highest - lowest, last)
    zero = (-lowest / scale).round().clamp(0, last)
    return Grid(scale, -zero, last - zero)


def _step(span: torch.Tensor, steps: int) -> torch.Tensor:
    return torch.where(span == 0, torch.ones_like(span), span / steps)


def to_rows(weight: torch.Tensor, granularity: Granularity) -> torch.Tensor:
    """Return a weight with a row for the values of each grid.

    Args:
        weight: A weight of shape (out, ...).
        granularity: "tensor", "channel", or a group size. A group size cuts each flattened output channel into groups
            and pads the last one with zeros.

    Returns:
        The values, shape (rows, n).
    """
    if granularity == "tensor":
        return weight.reshape(1, -1)
    flat = weight.flatten(1)
    if granularity == "channel":
        return flat
    return F.pad(flat, (0, -flat.shape[1] % granularity)).reshape(-1, granularity)


def from_rows(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Undo `to_rows`, and return a weight in the shape of `like`."""
    per_channel = values.reshape(len(like), -1)
    return per_channel[:, : like[0].numel()].reshape(like.shape)


def minmax(values: torch.Tensor, bits: int, symmetric: bool) -> Bounds:
    """Return the extremes of each row, (rows, 1), to clip nothing."""
    return values.amin(1, keepdim=True), values.amax(1, keepdim=True)


def percentile(share: float) -> RangeRule:
    """Return the rule that clips the outermost values.

    Args:
        share: The per cent of the magnitudes that are kept; for an asymmetric grid, that of either tail.
    """

    def rule(values: torch.Tensor, bits: int, symmetric: bool) -> Bounds:
        kept = share / 100
        if symmetric:
            largest = _quantile(values.abs(), kept)
            return -largest, largest
        return _quantile(values, 1 - kept), _quantile(values, kept)

    return rule


def _quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    # By sorting: torch.quantile refuses rows of more than 16 million values. The nearest rank, outwards.
    place = share * (values.shape[1] - 1)
    index = int(place) if share < 0.5 else -int(-place // 1)
    quantile = values.sort(1).values[:, index : index + 1]
    return torch.where(values.isnan().any(1, keepdim=True), torch.full_like(quantile, torch.nan), quantile)


def mse(values: torch.Tensor, bits: int, symmetric: bool) -> Bounds:
    """Return the range of each row that rounds with least squared error.

    It is the range from the lowest to the highest value, shrunk by a factor. This is the optimal-MSE search of
    Choukroun et al. 2019 (OMSE), by exhaustion over 100 factors up to 1.

    Args:
        values: The values that share a grid in each row, shape (rows, n).
        bits: The width of the grids.
        symmetric: Whether the grids are symmetric.

    Returns:
        The lowest and highest value of each grid, shape (rows, 1).
    """
    lowest, highest = minmax(values, bits, symmetric)
    best = torch.full_like(lowest, torch.inf)
    factor = torch.ones_like(lowest)
    for candidate in torch.linspace(1, 1 / CANDIDATES, CANDIDATES).tolist():
        grid = fit_grid(lowest * candidate, highest * candidate, bits, symmetric)
        error = (grid.round(values) - values).square_().sum(1, keepdim=True)
        better = error < best
        best, factor = torch.where(better, error, best), torch.where(better, candidate, factor)
    return lowest * factor, highest * factor
