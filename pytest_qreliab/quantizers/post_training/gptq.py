"""`gptq`: weights rounded with compensation of each error.

Weights are rounded one input at a time, and the inputs still to come make up for the error (Frantar et al. 2023). The
Hessian of a layer's squared output error, X^T X, is that of the full-precision inputs, computed for all layers at once.
The authors feed each block the outputs of the quantized blocks before it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, observers
from pytest_qreliab.quantizers.engine.grid import Granularity, Grid
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request

BLOCK = 128


def gptq(clip: Clip, request: Request) -> Clip:
    """Return a copy with error-compensating rounding of the weights.

    Activations are rounded as by `minmax`.
    """
    return procedure.quantize(clip, request, rounder=_rounder)


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


def _rounder(clip: Clip, layers: Layers, request: Request) -> Callable[[str, nn.Module], torch.Tensor]:
    hessians = observers.observe(clip, layers, request, Hessian)

    def round_weight(name: str, layer: nn.Module) -> torch.Tensor:
        weight = layer.get_parameter("weight")
        nearest = procedure.round_weight(weight, grid.minmax, request)
        if name not in hessians:
            return nearest
        hessian = hessians.pop(name).total
        by_group = zip(weight.chunk(len(hessian)), nearest.chunk(len(hessian)), hessian, strict=True)
        return torch.cat([_compensate(w, near, h, request) for w, near, h in by_group])

    return round_weight


def _compensate(weight: torch.Tensor, nearest: torch.Tensor, hessian: torch.Tensor, request: Request) -> torch.Tensor:
    """Return one group's weight, (out, ...), rounded with compensation.

    A row keeps `nearest` if that errs less.
    """
    parameters = request.parameters
    rows = weight.flatten(1)
    if not bool(rows.isfinite().all() and hessian.isfinite().all()):
        return nearest
    order = hessian.diagonal().argsort(descending=True, stable=True)
    damped = hessian[order][:, order].double()
    mean = float(damped.diagonal().mean())
    damped.diagonal().add_(parameters.damping * mean if mean > 0 else 1.0)
    # The rows of this factor are those of the inverse Hessians of ever fewer inputs.
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True).to(rows.dtype)
    grid_of_input = _grids(weight, request)
    rounded = torch.empty_like(rows)
    left = rows[:, order].clone()
    for start in range(0, left.shape[1], BLOCK):
        stop = min(start + BLOCK, left.shape[1])
        errors = torch.zeros_like(left[:, start:stop])
        for i in range(start, stop):
            column = int(order[i])
            rounded[:, column] = grid_of_input(column).round(left[:, i])
            error = (left[:, i] - rounded[:, column]) / factor[i, i]
            left[:, i:stop] -= error[:, None] * factor[i, i:stop]
            errors[:, i - start] = error
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    near = nearest.flatten(1)
    worse = _error(rounded - rows, hessian) > _error(near - rows, hessian)
    return torch.where(worse[:, None], near, rounded).reshape(weight.shape)


def _error(difference: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return the squared output error of each row, d H d^T: (out,)."""
    return ((difference @ hessian) * difference).sum(1)


def _grids(weight: torch.Tensor, request: Request) -> Callable[[int], Grid]:
    """Return the function from an input to the grids of all outputs."""
    granularity: Granularity = request.parameters.granularity
    bits, symmetric = request.bits.weights, request.parameters.symmetric
    fixed = grid.fit_grid(*grid.minmax(grid.to_rows(weight, granularity), bits, symmetric), bits, symmetric)
    out = len(weight)

    def per_output(values: torch.Tensor, column: int) -> torch.Tensor:
        if granularity == "tensor":
            return values[0]
        per_group = values.reshape(out, -1)
        return per_group[:, 0 if granularity == "channel" else column // granularity]

    def at(column: int) -> Grid:
        low, high = (
            per_output(bound, column) if isinstance(bound, torch.Tensor) else bound for bound in (fixed.low, fixed.high)
        )
        return Grid(per_output(fixed.scale, column), low, high)

    return at
