"""Modules that learn the quantization of a layer.

They learn its rounded weight, the steps of its grids, and its transformation. All rounding is to the symmetric grid
-q..q of `grid.levels`. A weight has one learned step per output channel, an input one per tensor.

Every learned tensor is in units in which 1 moves a level by about one step of its grid: weights and biases in steps,
steps as q times their logarithm. One learning rate of Adam then suits all of them at every width. It is the share of a
step that a weight may move at once, small at 8 bits and large at 2. Steps that are learned as logarithms stay positive
(as in Jain et al. 2019, TQT).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import Grid
from pytest_qreliab.quantizers.engine.transform import Transform

SHARPNESS = 0.2  # DSQ's alpha at the start, as its authors have it


class Lsq(torch.autograd.Function):
    """A rounding with the gradients of Learned Step Size Quantization.

    They are equations 3 and 5 of Esser et al. 2020. The gradient to x is passed straight through if |x| <= q step, else
    it is 0. The gradient to the step is round(x / step) - x / step inside, and q with the sign of x outside. It is
    multiplied by 1 / sqrt(N q), with N the elements of one row (of one sample). Adam cancels that factor. Its purpose
    is a step that changes, in proportion, as fast as its weights; the units do that.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: torch.Tensor, q: int) -> torch.Tensor:
        """Return `x` rounded to the grid -q..q.

        The step broadcasts with `x`.
        """
        rounded = Grid(step, -q, q).round(x)
        ctx.save_for_backward(x, step, rounded)
        ctx.q = q
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return the gradients to `x` and to the step."""
        (x, step, rounded), q, (gradient,) = ctx.saved_tensors, ctx.q, gradients
        inside = x.abs() <= q * step
        to_step = ((rounded - x * inside).mul_(gradient) / step).sum_to_size(step.shape)
        return gradient * inside, to_step / (x[0].numel() * q) ** 0.5, None


class LearnedRounding(nn.Module):
    """A rounding to grids of learned steps, with LSQ's gradients."""

    start: torch.Tensor  # the first steps, which broadcast with what is rounded

    def __init__(self, start: torch.Tensor, bits: int) -> None:
        super().__init__()
        self.q = grid.levels(bits)
        self.register_buffer("start", start)
        self.log_step = nn.Parameter(torch.zeros_like(start))

    def step(self) -> torch.Tensor:
        """Return the steps as they are now; differentiable.

        They have the shape of `start`.
        """
        return self.start * (self.log_step / self.q).exp()

    def grid(self) -> Grid:
        """Return the grid as it is now."""
        return Grid(self.step().detach(), -self.q, self.q)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded."""
        rounded: torch.Tensor = Lsq.apply(x, self.step(), self.q)
        return rounded


class SoftRounding(LearnedRounding):
    """A hard rounding with the gradients of a soft staircase.

    This is Differentiable Soft Quantization (Gong et al. 2019). The steps are learned, and with them the range that is
    clipped to. So is one sharpness alpha in (0, 0.5): the smaller it is, the nearer the staircase comes to rounding.
    """

    def __init__(self, start: torch.Tensor, bits: int) -> None:
        super().__init__(start, bits)
        self.sharpness = nn.Parameter(torch.logit(torch.full((), 2 * SHARPNESS, device=start.device)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded."""
        step = self.step()
        soft = staircase((x / step).clamp(-self.q, self.q), self.sharpness.sigmoid() / 2) * step
        return soft + (self.grid().round(x.detach()) - soft).detach()


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

    def __init__(self, rounding: LearnedRounding) -> None:
        super().__init__(rounding.start)
        self.rounding = rounding

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Return the rounded weight."""
        rounded: torch.Tensor = self.rounding(units * self.unit)
        return rounded


class LowRankWeight(RoundedWeight):
    """The parametrization of a frozen weight with a low-rank change (LR-QAT).

    It is step * clip(round(W / step + A B)) of Bondarenko et al. 2024, with A (out, rank) and B (rank, in). A
    convolution's weight counts as (out, in * height * width). B starts at 0, and A's rows with unit length, so that B
    is in steps.
    """

    def __init__(self, rounding: LearnedRounding, weight: torch.Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(rounding)
        flat = weight.flatten(1)
        rank = min(rank, *flat.shape)
        left = F.normalize(torch.randn(len(flat), rank, generator=generator), dim=1)
        self.left = nn.Parameter(left.to(weight.device))
        self.right = nn.Parameter(torch.zeros(rank, flat.shape[1], device=weight.device))

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Return the changed weight, rounded."""
        return super().forward(units + (self.left @ self.right).view(units.shape))


class LearnedTransform(nn.Module):
    """A learned scale and shift, shared by all layers of one input."""

    scale: torch.Tensor  # (channels,), the first scale
    unit: torch.Tensor  # (channels,), the shift is learned in multiples of it

    def __init__(self, scale: torch.Tensor, unit: torch.Tensor, bits: int, *, shift: bool) -> None:
        super().__init__()
        self.q = grid.levels(bits)
        self.register_buffer("scale", scale)
        self.register_buffer("unit", unit)
        self.log_scale = nn.Parameter(torch.zeros_like(scale))
        self.shift = nn.Parameter(torch.zeros_like(scale)) if shift else None

    def now(self) -> Transform:
        """Return the transformation as it is now; differentiable."""
        shift = None if self.shift is None else self.shift * self.unit
        return Transform(self.scale * (self.log_scale / self.q).exp(), shift)

    def input(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return what the transformed layer reads in place of `x`."""
        return self.now().input(layer, x)


class ClippedWeight(nn.Module):
    """The parametrization of a frozen weight with learned clipping (OmniQuant).

    This is the learned weight clipping of Shao et al. 2024: the weight W is transformed to W', and its grid ends at
    sigmoid(clip) max|W'|. The first share is given, in (0, 1) and of shape (out, 1, ...).
    """

    start: torch.Tensor  # the logit of the first share

    def __init__(
        self, layer: nn.Module, share: torch.Tensor, bits: int, transform: LearnedTransform | None = None
    ) -> None:
        super().__init__()
        self.q = grid.levels(bits)
        self.register_buffer("start", torch.logit(share))
        self.clip = nn.Parameter(torch.zeros_like(share))
        self.transform = transform
        self._layer = (layer,)  # not a submodule: it holds this one

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight, transformed and rounded."""
        if self.transform is not None:
            weight = self.transform.now().fold_weight(self._layer[0], weight)
        largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
        step = (self.start + 4 * self.clip / self.q).sigmoid() * largest / self.q
        rounded: torch.Tensor = Lsq.apply(weight, torch.where(largest == 0, torch.ones_like(step), step), self.q)
        return rounded


class ShiftedBias(nn.Module):
    """The parametrization of a frozen bias for a shifted input."""

    def __init__(self, layer: nn.Module, transform: LearnedTransform) -> None:
        super().__init__()
        self.transform = transform
        self._layer, self._weight = (layer,), layer.get_parameter("weight").detach()

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        """Return the bias that goes with the shifted input."""
        return bias + self.transform.now().bias_gain(self._layer[0], self._weight)
