"""Grids: their levels, their ranges, and the values that share one.

A range rule maps values of shape (rows, n), with one grid per row, to the lowest and highest value that the grid of
each row reaches. The same rules serve weights, whose rows are channels or groups, and activations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

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


def lies_on_grid(row: torch.Tensor, bits: int) -> bool:
    """Return whether values that share a grid lie on one, by the values alone.

    They do if they are evenly spaced levels, `2^bits` from end to end at most: multiples of a step, or (of four values
    or more) a start plus such multiples. Values that are on a grid already need not have been changed for that. Uneven
    levels, as of a codebook, count if each is taken twice on average, zeros aside: a short or a pruned row has few
    values anyway. Values that fit float16 or bfloat16 may be off by the rounding to it. In bfloat16, which has 8 bits
    itself, 8 bits are known by levels that are taken twice alone.

    Args:
        row: The values, shape (n,), finite, as they are after rounding in float32, or stored in half of it.
        bits: The width of the grid.

    Returns:
        True for a row of one value, which is on a grid of its own. Two or three float values that were not rounded lie
        on one of 2^8 levels by chance, in about one row in a hundred.

    Example:
        >>> lies_on_grid(torch.tensor([-0.3, 0.1, 0.2]), 3), lies_on_grid(torch.tensor([-0.3, 0.1, 0.2]), 2)
        (True, False)
        >>> lies_on_grid(torch.tensor([-0.31, 0.1, 0.2]), 3)
        False
    """
    values = cast(torch.Tensor, row.unique())  # type: ignore[no-untyped-call]
    if len(values) > 2**bits:
        return False
    if 0 < 2 * values.count_nonzero() <= row.count_nonzero():
        return True
    values = values.double().cpu()
    largest = values.abs().max()
    error = 2.0**-21 * largest  # a few of the last digits of float32
    if _evenly_spaced(values, largest, error, bits):
        return True
    if len(values) >= 4 and _evenly_spaced(values - values[0], values[-1] - values[0], error, bits):
        return True
    halves = (dtype for dtype in (torch.float16, torch.bfloat16) if torch.equal(values.to(dtype).double(), values))
    return any(_evenly_spaced(values, largest, values.abs() * torch.finfo(half).eps, bits, 0.2) for half in halves)


def _evenly_spaced(
    values: torch.Tensor, span: torch.Tensor, error: torch.Tensor, bits: int, most: float = 0.05
) -> bool:
    """Return whether values are multiples of a part of `span`, within as many levels as the width has.

    Each may be off by `error`, but not by more than `most` steps.
    """
    if span == 0:
        return True
    steps = torch.arange(1, 2**bits, dtype=values.dtype)[:, None]  # of which the span may consist
    places = values / span * steps
    near = ((places - places.round()).abs() <= (error / span * steps).clamp(max=most)).all(1)
    ends = places.round().clamp(min=0).amax(1) - places.round().clamp(max=0).amin(1)
    return bool((near & (ends < 2**bits)).any())


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
