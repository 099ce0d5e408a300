"""Modules that learn the quantization of a layer.

They learn its rounded weight, the steps of its grids, and its transformation. What shares a grid, and where the grid
ends in steps, is fixed from the start; the step is learned. The scales of blocks (MX, NVFP4) follow from the values and
are not learned.

Every learned tensor is in units in which 1 moves a level by about one step of its grid: weights and biases in steps,
steps as q times their logarithm. One learning rate of Adam then suits all of them at every width. It is the share of a
step that a weight may move at once, small at 8 bits and large at 2. Steps that are learned as logarithms stay positive
(as in Jain et al. 2019, TQT).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import Granularity, Grid
from pytest_qreliab.quantizers.engine.input_quantizer import Round

SHARPNESS = 0.2  # DSQ's alpha at the start, as its authors have it


class Lsq(torch.autograd.Function):
    """A rounding with the gradients of Learned Step Size Quantization.

    They are equations 3 and 5 of Esser et al. 2020. The gradient to x is passed straight through inside the grid, else
    it is 0. The gradient to the step is round(x / step) - x / step inside, and the end of the grid outside. It is
    multiplied by 1 / sqrt(N q), with N the elements of one row (of one sample) and q the highest level. Adam cancels
    that factor. Its purpose is a step that changes, in proportion, as fast as its weights; the units do that.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: torch.Tensor, start: Grid) -> torch.Tensor:
        """Return `x` rounded to a grid with another step, which broadcasts with `x`."""
        laid = replace(start, scale=step)
        rounded = laid.round(x)
        ctx.save_for_backward(x, step, rounded)
        ctx.laid = laid
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return the gradients to `x` and to the step."""
        (x, step, rounded), laid, (gradient,) = ctx.saved_tensors, ctx.laid, gradients
        inside = (x >= laid.low * step) & (x <= laid.high * step)
        to_step = ((rounded - x * inside).mul_(gradient) / step).sum_to_size(step.shape)
        return gradient * inside, to_step / (x[0].numel() * highest(laid)) ** 0.5, None


def highest(laid: Grid) -> float:
    """Return how many steps the outermost level of a grid is away from zero: LSQ's q.

    It is the highest integer, or the lowest of a grid that ends at zero. The steps of a float grow with its values: at
    any of them there are about 2^mantissa of its own steps down to zero.
    """
    if laid.number.kind != "integer":
        return 2.0**laid.number.mantissa
    return float(torch.as_tensor(laid.high).max()) or -float(torch.as_tensor(laid.low).min())


class StraightThrough(nn.Module):
    """A rounding to scales that follow from the values; gradients pass straight through."""

    def __init__(self, rounding: Round) -> None:
        super().__init__()
        self.rounding = rounding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded."""
        return self.rounding(x.detach()) + (x - x.detach())  # in this order it is what is rounded, to the last bit


class LearnedRounding(nn.Module):
    """A rounding to grids of learned steps, with LSQ's gradients."""

    start: torch.Tensor  # the first steps, which broadcast with what is rounded

    def __init__(self, start: Grid) -> None:
        super().__init__()
        self._start, self.q = start, highest(start)
        self.register_buffer("start", start.scale)
        self.log_step = nn.Parameter(torch.zeros_like(start.scale))

    def step(self) -> torch.Tensor:
        """Return the steps as they are now; differentiable.

        They have the shape of `start`.
        """
        return self.start * (self.log_step / self.q).exp()

    def grid(self) -> Grid:
        """Return the grid as it is now."""
        return replace(self._start, scale=self.step().detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded."""
        rounded: torch.Tensor = Lsq.apply(x, self.step(), self._start)
        return rounded


class SoftRounding(LearnedRounding):
    """A hard rounding with the gradients of a soft staircase.

    This is Differentiable Soft Quantization (Gong et al. 2019). The steps are learned, and with them the range that is
    clipped to. So is one sharpness alpha in (0, 0.5): the smaller it is, the nearer the staircase comes to rounding.
    """

    def __init__(self, start: Grid) -> None:
        super().__init__(start)
        self.sharpness = nn.Parameter(torch.logit(torch.full((), 2 * SHARPNESS, device=start.scale.device)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded."""
        step = self.step()
        low, high = cast(tuple[torch.Tensor, torch.Tensor], (self._start.low, self._start.high))  # or both are numbers
        soft = staircase((x / step).clamp(low, high), self.sharpness.sigmoid() / 2) * step
        return self.grid().round(x.detach()) + (soft - soft.detach())


def staircase(units: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return DSQ's soft rounding.

    It is a tanh between each two integers, which it keeps. In equations 3 to 8 of Gong et al. 2019 it is
    phi(x) = tanh(k (x - m)) / (1 - alpha) around the middle m of two levels, with k = log(2 / alpha - 1).

    Args:
        units: Values in units of the step.
        alpha: The sharpness, a scalar in (0, 1); 0 is the limit of rounding.
    """
    below = units.detach().floor()
    k = (2 / alpha - 1).log()
    return below + 0.5 + torch.tanh(k * (units - below - 0.5)) / (2 * (1 - alpha))


class Scaled(nn.Module):
    """The parametrization of a tensor learned in a unit of its own."""

    unit: torch.Tensor  # broadcasts with the tensor

    def __init__(self, unit: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit)

    def right_inverse(self, value: torch.Tensor) -> torch.Tensor:
        """Return the tensor in units."""
        return value / self.unit

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Return the tensor itself."""
        return units * self.unit


class RoundedWeight(Scaled):
    """The parametrization of a weight that is rounded.

    It is learned in units of its first steps.
    """

    def __init__(self, rounding: nn.Module, unit: torch.Tensor, granularity: Granularity) -> None:
        super().__init__(unit)
        self.rounding, self._granularity = rounding, granularity

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Return the rounded weight."""
        rows = grid.to_rows(units * self.unit, self._granularity)
        return grid.from_rows(self.rounding(rows), units, self._granularity)


class LowRankWeight(RoundedWeight):
    """The parametrization of a frozen weight with a low-rank change (LR-QAT).

    It is step * clip(round(W / step_0 + alpha / rank A B)) of Bondarenko et al. 2024, with A (out, rank)
    and B (rank, in). A convolution's weight counts as (out, in * height * width). As the authors have it, A starts at 0
    and B with values drawn from -1 / sqrt(in) to 1 / sqrt(in).
    """

    def __init__(
        self,
        rounding: nn.Module,
        unit: torch.Tensor,
        granularity: Granularity,
        *,
        rank: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(rounding, unit, granularity)
        out, inputs = unit.flatten(1).shape
        rank = min(rank, out, inputs)
        self.factor = alpha / rank
        self.left = nn.Parameter(torch.zeros(out, rank, device=unit.device))
        drawn = torch.rand(rank, inputs, generator=generator)
        self.right = nn.Parameter(((2 * drawn - 1) / inputs**0.5).to(unit.device))

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Return the changed weight, rounded."""
        return super().forward(units + self.factor * (self.left @ self.right).view(units.shape))
