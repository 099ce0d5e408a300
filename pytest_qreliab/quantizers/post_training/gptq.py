"""`gptq`: weights rounded with compensation of each error.

Weights are rounded one input at a time, and the inputs still to come make up for the error (Frantar et al. 2023). The
model is walked through block by block, and inside a block in the order in which layers read: the Hessian of a layer's
squared output error, X^T X, is that of the inputs which the rounded layers before it bring about. If activations are
rounded, which the authors do not do, the inputs are the rounded ones that the layer will read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import blocks, grid
from pytest_qreliab.quantizers.engine.blocks import TowerBlock
from pytest_qreliab.quantizers.engine.grid import Grid, Scheme
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request

INPUTS = 128  # of a layer, whose errors are passed on to all later ones at once


def gptq(clip: Clip, request: Request) -> Clip:
    """Return a copy with error-compensating rounding of the weights.

    Activations are rounded as by `minmax`.
    """
    return procedure.quantize(clip, request, rounder=round_weights)


class Hessian:
    """The observer that sums X^T X over a layer's input rows."""

    def __init__(self, layer: nn.Module) -> None:
        weight = layer.get_parameter("weight")
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        n = weight[0].numel()
        self.total = torch.zeros(groups, n, n, device=weight.device)  # n: the inputs of one output

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Add the rows of one more input."""
        rows = unfold_rows(layer, x)
        self.total += rows.transpose(1, 2) @ rows


def unfold_rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the rows that a layer's flattened weight multiplies.

    Their shape is (groups, rows, n), with n the inputs of one output.
    """
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(1, -1, x.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    patches = F.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)
    grouped = patches.reshape(len(x), layer.groups, -1, patches.shape[-1])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def round_weights(clip: Clip, layers: Layers, request: Request) -> None:
    """Round the weights of layers with compensation, in place.

    Args:
        clip: The model, whose inputs are rounded already if they are to be.
        layers: Its layers by name, transformed or not.
        request: Gives the formats, the calibration data and the damping.

    Raises:
        ValueError: The request has no calibration data.
    """
    left = dict(layers)
    for block in blocks.walk(clip, layers, request):
        for name in round_block(block, request, request.parameters.damping):
            del left[name]
    procedure.nearest(grid.minmax)(clip, left, request)  # what no calibration data reach


@torch.no_grad()
def round_block(block: TowerBlock, request: Request, damping: float) -> list[str]:
    """Round the weights of a block, in place, and return the layers that its inputs reach.

    Args:
        block: The block. Those of its layers that read one tensor are rounded together, and then the next ones.
        request: Gives the formats.
        damping: What is added to the diagonals of Hessians, relative to their mean.
    """
    reached: list[str] = []
    for names in block.groups:
        for name, hessian in block.observe(names, Hessian).items():
            weight = block.layers[name].get_parameter("weight")
            weight.copy_(compensate(weight, hessian.total, request.weight_scheme(name), damping))
            reached.append(name)
    return reached


def compensate(weight: torch.Tensor, hessians: torch.Tensor, scheme: Scheme, damping: float) -> torch.Tensor:
    """Return a weight rounded with compensation.

    Args:
        weight: The weight, (out, ...).
        hessians: X^T X of the inputs of each group of outputs, (groups, n, n).
        scheme: The values that the weight may be rounded to; its grids have the range of the weight.
        damping: What is added to the diagonals, relative to their mean.

    Returns:
        The rounded weight. A row is rounded to the nearest if that errs less, or if the Hessian holds NaN or infinity.
    """
    flat, laid = weight.flatten(1), _grid_of_each(weight, scheme)
    nearest = Grid(laid[0], laid[1], laid[2], scheme.number).round(flat)
    rounded = nearest.clone()
    size = len(flat) // len(hessians)
    for start, hessian in zip(range(0, len(flat), size), hessians, strict=True):
        own = slice(start, start + size)
        rows = flat[own]
        if bool(rows.isfinite().all() and hessian.isfinite().all()):
            order = hessian.diagonal().argsort(descending=True, stable=True)
            factor = _inverse_factor(hessian[order][:, order], damping).to(rows.dtype)
            scale, low, high = (values[own][:, order].T for values in laid)
            grids = [Grid(scale[i], low[i], high[i], scheme.number) for i in range(len(order))]
            found = torch.empty_like(rows)
            found[:, order] = _round_inputs(rows[:, order].T.contiguous(), factor, grids).T
            worse = _error(found - rows, hessian) > _error(nearest[own] - rows, hessian)
            rounded[own] = torch.where(worse[:, None], nearest[own], found)
    return rounded.view(weight.shape)


def _round_inputs(left: torch.Tensor, factor: torch.Tensor, grids: Sequence[Grid]) -> torch.Tensor:
    """Return the weights of inputs, (n, out), each rounded to its grids and its errors passed on to those after it."""
    rounded = torch.empty_like(left)
    for start in range(0, len(left), INPUTS):
        stop = min(start + INPUTS, len(left))
        errors = torch.zeros_like(left[start:stop])
        for i in range(start, stop):
            rounded[i] = grids[i].round(left[i])
            error = errors[i - start] = (left[i] - rounded[i]) / factor[i, i]
            left[i:stop] -= factor[i, i:stop, None] * error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return rounded


def _inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Return the upper triangular U with U^T U the inverse of the damped Hessian, in float64.

    Its rows are those of the inverse Hessians of ever fewer inputs.
    """
    damped = hessian.double()
    mean = float(damped.diagonal().mean())
    damped.diagonal().add_(damping * mean if mean > 0 else 1.0)
    # With the inputs in reverse H is L L^T. In their own order it is R R^T with an upper R, the inverse of which is U.
    lower = torch.linalg.cholesky(damped.flip(0, 1))
    identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    inverse: torch.Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.flip(0, 1)


def _error(difference: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return the squared output error of each row, d H d^T: (out,)."""
    return ((difference @ hessian) * difference).sum(1)


def _grid_of_each(weight: torch.Tensor, scheme: Scheme) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the scale, the lowest and the highest level of the grid of each element, (out, n) each."""
    rows = grid.to_rows(weight, scheme.granularity)
    laid = scheme.fit_values(rows, grid.minmax)

    def spread(values: torch.Tensor | float) -> torch.Tensor:
        each = torch.as_tensor(values, dtype=rows.dtype, device=rows.device).expand_as(rows)
        return grid.from_rows(each, weight, scheme.granularity).flatten(1)

    return spread(laid.scale), spread(laid.low), spread(laid.high)
