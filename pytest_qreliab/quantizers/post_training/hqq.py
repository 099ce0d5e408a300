"""`hqq`: weights on grids whose zero points are fitted, without calibration data.

Half-Quadratic Quantization (Badri & Shaji 2023) fits them to all weights but those that round worst.
"""

from __future__ import annotations

import torch

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, number_rounding
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request

NORM = 0.7  # the p of the norm of the error; below 1, few large errors count little
BETA, KAPPA = 10.0, 1.01  # the penalty at first, and its growth
ITERATIONS = 20


def hqq(clip: Clip, request: Request) -> Clip:
    """Return a copy with weights rounded by Half-Quadratic Quantization.

    Activations, if any, are rounded as by `minmax`.
    """
    return procedure.quantize(clip, request, rounder=_round_weights)


def _round_weights(clip: Clip, layers: Layers, request: Request) -> None:
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        weight.copy_(round_weight(weight, request.weight_scheme(name)))


def round_weight(weight: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Return a weight (out, ...), rounded to 2^bits levels around zero points that are optimised.

    The zero points are no integers, so zero need not be a level.
    """
    flat, size = weight.flatten(1), scheme.granularity
    if isinstance(size, int) and flat.shape[1] % size:  # zeros that fill the last group would count in its zero point
        whole = flat.shape[1] // size * size
        parts = (flat[:, :whole], flat[:, whole:])
        return torch.cat([_round(part, scheme) for part in parts if part.numel()], 1).view_as(weight)
    return _round(flat, scheme).view_as(weight)


def _round(flat: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    size = scheme.granularity
    rows = grid.to_rows(flat, min(size, flat.shape[1]) if isinstance(size, int) else size)
    last = 2**scheme.number.bits - 1
    lowest, highest = grid.minmax(rows, scheme)
    scale = number_rounding.divide(highest - lowest, last)
    zero = _find_zero(rows, scale, last, -lowest / scale, rounded=scheme.number.bits == 4)
    return _dequantized(_codes(rows, scale, zero, last), scale, zero).view_as(flat)


def _find_zero(rows: torch.Tensor, scale: torch.Tensor, last: int, zero: torch.Tensor, rounded: bool) -> torch.Tensor:
    """Return the zero point of each row by the half-quadratic solver.

    It takes turns: the error that is sparse under the norm (the proximal step), and the zero point that fits the rest
    best (a mean). It stops as soon as the mean error no longer falls, as the authors do.

    Args:
        rows: Values that share a scale and a zero point, (rows, n).
        scale: The steps, (rows, 1).
        last: The highest code; the lowest is 0.
        zero: The zero points to start from, (rows, 1).
        rounded: Start from whole numbers, as the authors do for 4 bits.

    Returns:
        The zero points in units of the scale, (rows, 1).
    """
    zero = zero.round() if rounded else zero
    beta, least = BETA, torch.inf
    for _ in range(ITERATIONS):
        codes = _codes(rows, scale, zero, last)
        error = rows - _dequantized(codes, scale, zero)
        sparse = error.sign() * (error.abs() - error.abs().pow(NORM - 1) / beta).clamp(min=0)
        zero = (codes - (rows - sparse) / scale).mean(1, keepdim=True)
        beta *= KAPPA
        mean_error = float(error.abs().mean())
        if not mean_error < least:
            break
        least = mean_error
    return zero


def _codes(rows: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, last: int) -> torch.Tensor:
    return (rows / scale + zero).round().clamp(0, last)


def _dequantized(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return (codes - zero) * scale
