"""Recognition of values that lie on a grid, by the values alone."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from pytest_qreliab.config.formats import Number
from pytest_qreliab.data.sampling import one_of_each_stretch
from pytest_qreliab.quantizers.engine import number_rounding

SAMPLED_ROWS = 16


def some_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return 16 rows of values, (rows, n), drawn at random, or all if there are fewer: the same ones each time."""
    drawn = one_of_each_stretch(len(rows), SAMPLED_ROWS, np.random.default_rng(0))
    return rows[torch.from_numpy(drawn).to(rows.device)]


def is_rounded(row: torch.Tensor, number: Number) -> bool:
    """Return whether values that share a scale are those of a number type times a scale.

    Args:
        row: The values, shape (n,), finite.
        number: The type.
    """
    if number.kind == "integer":
        return lies_on_grid(row, number.bits)
    if number.scale == "none":
        return torch.equal(number_rounding.round_to(row, number), row)
    largest = row.abs().max()
    if largest == 0:
        return True
    if number.scale == "e8m0":  # a power of two, by which rounding again changes nothing
        scale = number_rounding.fit_scale(largest, number)
        return any(torch.equal(number_rounding.round_to(row / s, number) * s, row) for s in (scale, 2 * scale))
    # The largest may be any value of the type: so may the scale be.
    levels = number_rounding.positive_values(number).to(row.device)
    scales = (largest / levels)[:, None]
    off = (number_rounding.round_to(row / scales, number) * scales - row).abs().amax(1)
    return bool((off <= 2.0**-20 * largest).any())


def lies_on_grid(row: torch.Tensor, bits: int) -> bool:
    """Return whether values that share a grid lie on one of integers, by the values alone.

    They do if they are evenly spaced levels, `2^bits` from end to end at most: multiples of a step, or (of four values
    or more, up to 4 bits of three) a start plus such multiples. Of one bit a value and its negative do as well. Values
    that are on a grid already need not have been changed for that. Uneven levels, as of a codebook, count if each is
    taken twice on average, zeros aside: a short or a pruned row has few values anyway. Values that fit float16 or
    bfloat16 may be off by the rounding to it. In bfloat16, which has 8 bits itself, 8 bits are known by levels that are
    taken twice alone.

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
    if bits == 1 and bool(largest - values.abs().min() <= error):
        return True
    if _evenly_spaced(values, largest, error, bits):
        return True
    enough = 3 if bits <= 4 else 4  # values, for a start that is left open
    if len(values) >= enough and _evenly_spaced(values - values[0], values[-1] - values[0], error, bits):
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
