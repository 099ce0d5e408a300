"""Grids: the levels that a width allows, how they are laid over a range, and which values share one.

A range rule maps values of shape (rows, n), one grid per row, to the lowest and highest value that the grid
of each row should reach. The same rules serve weights, whose rows are channels or groups, and activations.
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
    """Largest integer q of the symmetric grid -q..q: 127 for 8 bits, 1 for 2 bits."""
    return int(2 ** (bits - 1)) - 1


@dataclass(frozen=True)
class Grid:
    """The multiples of `scale` from `low` to `high` steps; zero is always one of them.

    An asymmetric grid is 0..2^bits-1 around its zero point z, so `low` is -z and `high` 2^bits-1-z.
    """

    scale: torch.Tensor
    low: torch.Tensor | float
    high: torch.Tensor | float

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest point (ties to even) of the grid. NaN stays NaN, infinities saturate."""
        return x.div(self.scale).round_().clamp_(self.low, self.high).mul_(self.scale)  # type: ignore[arg-type]


def fit_grid(lowest: torch.Tensor, highest: torch.Tensor, bits: int, symmetric: bool) -> Grid:
    """The grid of that width over a range; of step 1 where the range is nothing but 0. NaN stays NaN."""
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


def rows(weight: torch.Tensor, granularity: Granularity) -> torch.Tensor:
    """The weight (out, ...) as (rows, n), one row for all that shares a grid.

    A group size cuts each output channel, flattened, into groups; the last one is filled up with zeros.
    """
    if granularity == "tensor":
        return weight.reshape(1, -1)
    flat = weight.flatten(1)
    if granularity == "channel":
        return flat
    return F.pad(flat, (0, -flat.shape[1] % granularity)).reshape(-1, granularity)


def from_rows(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Undo `rows`."""
    per_channel = values.reshape(len(like), -1)
    return per_channel[:, : like[0].numel()].reshape(like.shape)


# Range rules


def minmax(values: torch.Tensor, bits: int, symmetric: bool) -> Bounds:
    """The extremes: nothing is clipped."""
    return values.amin(1, keepdim=True), values.amax(1, keepdim=True)


def percentile(share: float) -> RangeRule:
    """The rule that clips the outermost values: `share`, in per cent, of the magnitudes (or of either tail) is kept."""

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
    """The extremes shrunk by the factor, one of 100 up to 1, that rounds with the least squared error.

    The optimal-MSE search of Choukroun et al. 2019 (OMSE), by exhaustion.
    """
    lowest, highest = minmax(values, bits, symmetric)
    best = torch.full_like(lowest, torch.inf)
    factor = torch.ones_like(lowest)
    for tried in torch.linspace(1, 1 / CANDIDATES, CANDIDATES).tolist():
        grid = fit_grid(lowest * tried, highest * tried, bits, symmetric)
        error = (grid.round(values) - values).square_().sum(1, keepdim=True)
        better = error < best
        best, factor = torch.where(better, error, best), torch.where(better, tried, factor)
    return lowest * factor, highest * factor
