"""Rounding to number types, and the scales that their values are multiplied by.

Everything is exact in float32: powers of two are written bit by bit, as `torch.pow` need not hit them.
"""

from __future__ import annotations

import math

import torch

from pytest_qreliab.config.formats import FLOATS, Number

_CASTS = {"fp16": torch.float16, "bf16": torch.bfloat16}
_SCALE = FLOATS["fp8"]  # of NVFP4's blocks
_SMALLEST_SCALE = 2.0**-6  # of NVFP4's blocks: the smallest normal e4m3 number
_MANTISSA, _BIAS = 23, 127  # of float32


def round_to(values: torch.Tensor, number: Number) -> torch.Tensor:
    """Return the nearest values of a float type, ties to even.

    Beyond the largest, values saturate. To fp16 and bf16, which have no scale, they are cast, and become infinite. NaN
    stays NaN, and -0 stays -0.

    Args:
        values: In units of the scale, float32, any shape.
        number: A float type.
    """
    if number.name in _CASTS:
        return values.to(_CASTS[number.name]).to(values.dtype)
    smallest = 2 - 2 ** (number.exponent - 1)  # the exponent of the smallest normal number, and of all below it
    quantum = _power_of_two(_exponent(values).clamp_(min=smallest).sub_(number.mantissa))
    return values.div(quantum).round_().mul_(quantum).clamp_(-number.largest, number.largest)


def _exponent(values: torch.Tensor) -> torch.Tensor:
    """Return the exponent of float32 values, int32: -127 for 0 and subnormals, 128 for infinity and NaN."""
    return values.contiguous().view(torch.int32).bitwise_right_shift(_MANTISSA).bitwise_and_(255).sub_(_BIAS)


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """Return 2 to an int32 exponent from -127 to 127, float32."""
    normal = exponent.add(_BIAS).bitwise_left_shift_(_MANTISSA)
    return torch.where(exponent == -_BIAS, 1 << (_MANTISSA - 1), normal).view(torch.float32)


def round_to_signs(rows: torch.Tensor) -> torch.Tensor:
    """Return the signs of values times the mean magnitude of their row, which is the closest for given signs.

    The scale is that of XNOR-Net (Rastegari et al. 2016, equation 6). The sign of 0 is 1. A row with NaN becomes NaN.

    Args:
        rows: The values, shape (rows, n).
    """
    return torch.where(rows < 0, -1.0, 1.0) * rows.abs().mean(1, keepdim=True)


def fit_scale(largest: torch.Tensor, number: Number, of_all: torch.Tensor | None = None) -> torch.Tensor:
    """Return the scale of values with a largest magnitude.

    Args:
        largest: The largest magnitude of each row that shares a scale, float32. For NVFP4, of all blocks of one tensor.
        number: A float type.
        of_all: For NVFP4, the scalar that scales all blocks; None: it comes from the largest of them.

    Returns:
        The scales in the shape of `largest`. MX takes the power of two below, by the largest exponent of an element
        (OCP Microscaling Formats 1.0, section 6.3), from 2^-127 to 2^127. NVFP4 takes an e4m3 number times a float32 of
        the tensor, so that the largest of all blocks has the largest e4m3 scale; no scale is below the smallest normal
        e4m3 number (as in torchao).
    """
    if number.scale == "none":
        return torch.ones_like(largest)
    if number.scale == "e8m0":
        top = math.frexp(number.largest)[1] - 1
        scale = _power_of_two(_exponent(largest).sub_(top).clamp_(-_BIAS, _BIAS))
        return torch.where(largest.isnan(), largest, torch.where(largest == 0, 1.0, scale))
    if number.scale == "e4m3":
        of_all = of_all if of_all is not None else tensor_scale(largest.amax(), number)
        in_units = (largest / number.largest / of_all).clamp_(_SMALLEST_SCALE, _SCALE.largest)
        return round_to(in_units, _SCALE) * of_all
    return divide(largest, number.largest)


def tensor_scale(largest: torch.Tensor, number: Number) -> torch.Tensor:
    """Return the scalar that scales all blocks of NVFP4 tensors with a largest magnitude."""
    return divide(largest, number.largest * _SCALE.largest)


def divide(span: torch.Tensor, by: float) -> torch.Tensor:
    """Return `span / by`, and 1 for a span of 0 or one so small that nothing is left of it."""
    quotient = span / by
    return torch.where(quotient == 0, torch.ones_like(quotient), quotient)


def positive_values(number: Number) -> torch.Tensor:
    """Return the positive values of a float type of at most 8 bits, ascending."""
    smallest = 2.0 ** (2 - 2 ** (number.exponent - 1) - number.mantissa)
    mantissas = 1 + torch.arange(2**number.mantissa) / 2**number.mantissa
    normals = 2.0 ** (torch.arange(2**number.exponent)[:, None] + 2 - 2 ** (number.exponent - 1)) * mantissas
    subnormals = smallest * torch.arange(1, 2**number.mantissa)
    values = torch.cat([subnormals, normals.flatten()])
    return values[values <= number.largest]
