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

from pytest_qreliab.config.formats import Format, Number
from pytest_qreliab.quantizers.engine import number_rounding


class Block(int):
    """The number of values along the input channels that share a scale, at each place of a convolution's kernel."""


Granularity = Literal["tensor", "channel"] | int  # an int that is no Block: a group of a flattened output channel
Bounds = tuple[torch.Tensor, torch.Tensor]

CANDIDATES = 100  # shrink factors of a range of integers that `mse` tries


@dataclass(frozen=True)
class Grid:
    """The multiples of a scale by the values of a number type within bounds; zero is always one.

    An asymmetric grid of integers is 0..2^bits-1 around its zero point z: `low` is -z and `high` is 2^bits-1-z.
    """

    scale: torch.Tensor  # broadcasts with the values
    low: torch.Tensor | float  # in units of the scale
    high: torch.Tensor | float  # in units of the scale
    number: Number

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest points of the grid, ties to even.

        NaN stays NaN, and infinities saturate.
        """
        return self.to_units(x.div(self.scale)).mul_(self.scale)

    def to_units(self, units: torch.Tensor) -> torch.Tensor:
        """Round values in units of the scale, in place."""
        if self.number.kind == "integer":
            return units.round_().clamp_(self.low, self.high)  # type: ignore[arg-type]
        return number_rounding.round_to(units, self.number)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """The values that a tensor may be rounded to, but for the scales, which come from its own values."""

    number: Number
    granularity: Granularity = "channel"  # of weights: the values that share a scale
    symmetric: bool = True  # no zero point; floats have none anyway
    restricted_range: bool = False  # integers, symmetric: without the lowest of the 2^bits levels

    def fit(self, lowest: torch.Tensor, highest: torch.Tensor, of_all: torch.Tensor | None = None) -> Grid:
        """Return the grid that covers a range.

        Args:
            lowest: The lower ends of the ranges, one per grid.
            highest: The upper ends, in the same shape.
            of_all: For NVFP4, the scalar that scales all blocks; None: it comes from the largest of them.

        Returns:
            The grid, with a scale in the shape of the bounds. It is 1 for integers or floats of nothing but 0, and NaN
            for a range with NaN. Symmetric integers are -2^(bits-1)..2^(bits-1)-1, without the lowest if the range is
            restricted, asymmetric ones 2^bits levels around a zero point. The scale of symmetric ones is the largest
            magnitude by half the distance of the outer levels, as in torchao and PyTorch: the smallest with which no
            value errs by more than half a step.
        """
        number = self.number
        if number.kind != "integer":
            scale = number_rounding.fit_scale(torch.maximum(lowest.abs(), highest.abs()), number, of_all)
            return Grid(scale, -number.largest, number.largest, number)
        if not self.symmetric:
            lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
            last = 2**number.bits - 1
            scale = number_rounding.divide(highest - lowest, last)
            zero = (-lowest / scale).round().clamp(0, last)
            return Grid(scale, -zero, last - zero, number)
        low, high = self.levels()
        scale = number_rounding.divide(torch.maximum(lowest.abs(), highest.abs()), (high - low) / 2)
        return Grid(scale, low, high, number)

    def levels(self) -> tuple[int, int]:
        """Return the lowest and the highest integer of symmetric grids.

        They are -128 and 127 for 8 bits, and -2 and 1 for 2 bits.
        """
        high = 2 ** (self.number.bits - 1) - 1
        return -high if self.restricted_range else -high - 1, high

    def scale_of_all(self, values: torch.Tensor) -> torch.Tensor | None:
        """Return the scalar that scales all blocks of a tensor, given all of its values; None if the type has none."""
        if self.number.scale != "e4m3":
            return None
        return number_rounding.tensor_scale(values.abs().amax(), self.number)

    def fit_values(self, values: torch.Tensor, rule: RangeRule, of_all: torch.Tensor | None = None) -> Grid:
        """Return the grids of values, (rows, n), over the ranges that a rule finds."""
        return self.fit(*rule(values, self), self.scale_of_all(values) if of_all is None else of_all)


RangeRule = Callable[[torch.Tensor, Scheme], Bounds]


def granularity(form: Format, otherwise: Granularity) -> Granularity:
    """Return which weights share a scale: those of a block or a group, if the format has any."""
    return Block(form.weights.block) if form.weights.block else form.group or otherwise


def to_rows(weight: torch.Tensor, granularity: Granularity, fill: float = 0.0) -> torch.Tensor:
    """Return a weight with a row for the values of each grid.

    Args:
        weight: A weight of shape (out, ...).
        granularity: "tensor", "channel", a group size or a block. A group size cuts each flattened output channel into
            groups and fills up the last one. A block does so with the input channels, at each place of a kernel by
            itself, as the emulation by the authors of MX does (microsoft/microxcaling).
        fill: The value that fills up the last group.

    Returns:
        The values, shape (rows, n).
    """
    if granularity == "tensor":
        return weight.reshape(1, -1)
    if isinstance(granularity, Block) and weight.ndim == 4:
        weight = weight.permute(0, 2, 3, 1).flatten(0, 2)
    flat = weight.flatten(1)
    if granularity == "channel":
        return flat
    return F.pad(flat, (0, -flat.shape[1] % granularity), value=fill).reshape(-1, granularity)


def from_rows(values: torch.Tensor, like: torch.Tensor, granularity: Granularity) -> torch.Tensor:
    """Undo `to_rows`, and return a weight in the shape of `like`."""
    if isinstance(granularity, Block) and like.ndim == 4:
        channels_last = like.permute(0, 2, 3, 1)
        rows = values.reshape(channels_last[..., 0].numel(), -1)[:, : like.shape[1]]
        return rows.reshape(channels_last.shape).permute(0, 3, 1, 2)
    per_channel = values.reshape(len(like), -1)
    return per_channel[:, : like[0].numel()].reshape(like.shape)


def minmax(values: torch.Tensor, scheme: Scheme) -> Bounds:
    """Return the extremes of each row, (rows, 1), to clip nothing."""
    return values.amin(1, keepdim=True), values.amax(1, keepdim=True)


def percentile(share: float) -> RangeRule:
    """Return the rule that clips the outermost values.

    Args:
        share: The per cent of the magnitudes that are kept; for an asymmetric grid, that of either tail.
    """

    def rule(values: torch.Tensor, scheme: Scheme) -> Bounds:
        kept = share / 100
        if scheme.symmetric:
            largest = _quantile(values.abs(), kept)
            lowest, highest = minmax(values, scheme)
            return torch.maximum(lowest, -largest), torch.minimum(highest, largest)
        return _quantile(values, 1 - kept), _quantile(values, kept)

    return rule


def _quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    # By sorting: torch.quantile refuses rows of more than 16 million values. The nearest rank, outwards.
    place = share * (values.shape[1] - 1)
    index = int(place) if share < 0.5 else -int(-place // 1)
    quantile = values.sort(1).values[:, index : index + 1]
    return torch.where(values.isnan().any(1, keepdim=True), torch.full_like(quantile, torch.nan), quantile)


def mse(values: torch.Tensor, scheme: Scheme) -> Bounds:
    """Return the range of each row that rounds with least squared error.

    It is the range from the lowest to the highest value, shrunk by a factor. This is the optimal-MSE search of
    Choukroun et al. 2019 (OMSE), by exhaustion over 100 factors up to 1. Floats, which have the same levels for half
    the range, take 26 factors down to 1/2. The ranges of blocks may grow too: the power of two of MX often cuts off the
    largest value, and NVFP4 rounds some blocks better if that is a 4 and not a 6.

    Args:
        values: The values that share a grid in each row, shape (rows, n).
        scheme: The grids.

    Returns:
        The lowest and highest value of each grid, shape (rows, 1).
    """
    lowest, highest = minmax(values, scheme)
    if scheme.number.scale == "none":
        return lowest, highest
    of_all = scheme.scale_of_all(values)
    best = torch.full_like(lowest, torch.inf)
    factor = torch.ones_like(lowest)
    for candidate in _factors(scheme.number):
        grid = scheme.fit(lowest * candidate, highest * candidate, of_all)
        error = (grid.round(values) - values).square_().sum(1, keepdim=True)
        better = error < best
        best, factor = torch.where(better, error, best), torch.where(better, candidate, factor)
    return lowest * factor, highest * factor


def _factors(number: Number) -> list[float]:
    if number.scale == "e8m0":
        return [1.0, 2.0, 0.5]
    if number.scale == "e4m3":
        return [1.5 - k / 25 for k in range(26)]
    if number.exponent:
        return [1 - k / 50 for k in range(26)]
    return [1 - k / CANDIDATES for k in range(CANDIDATES)]
