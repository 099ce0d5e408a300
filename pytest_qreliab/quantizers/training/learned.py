"""What training learns of a layer: its weight behind a rounding, the steps of its grids, its transformation.

All rounding is to the symmetric grid -q..q of `grid.levels`, of one learned step per output channel of a weight
and one per tensor of an input. While a model trains, a layer's weight and bias are torch parametrizations and its
input is rounded by a module in its InputQuantizer; `bake` turns all of it into what any other quantizer leaves.

Every learned tensor is in units in which 1 moves a level by about one step of its grid: weights and biases in
steps, steps as q times their logarithm. One learning rate of Adam then suits all of them at every width: it is
the share of a step that a weight may move at once, small at 8 bits and large at 2. Learned logarithms stay
positive (as in Jain et al. 2019, TQT).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine import input_quantizer as engine_layers
from pytest_qreliab.quantizers.engine.grid import Grid
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform

SHARPNESS = 0.2  # DSQ's alpha at the start: its authors'


class Lsq(torch.autograd.Function):
    """Rounding with the gradients of Learned Step Size Quantization (Esser et al. 2020, equations 3 and 5).

    To x: passed straight through where |x| <= q step, else 0. To the step: round(x / step) - x / step inside,
    q with the sign of x outside, times 1 / sqrt(N q) with N the elements of one row (of one sample). Adam cancels
    that factor, whose purpose is a step that changes, in proportion, as fast as its weights; the units do that.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: torch.Tensor, q: int) -> torch.Tensor:
        rounded = Grid(step, -q, q).round(x)
        ctx.save_for_backward(x, step, rounded)
        ctx.q = q
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (x, step, rounded), q, (gradient,) = ctx.saved_tensors, ctx.q, gradients
        inside = x.abs() <= q * step
        to_step = ((rounded - x * inside).mul_(gradient) / step).sum_to_size(step.shape)
        return gradient * inside, to_step / (x[0].numel() * q) ** 0.5, None


class LearnedRounding(nn.Module):
    """Rounds to a grid of learned steps, with the gradients of LSQ; `start` broadcasts with what is rounded."""

    start: torch.Tensor

    def __init__(self, start: torch.Tensor, bits: int) -> None:
        super().__init__()
        self.q = grid.levels(bits)
        self.register_buffer("start", start)
        self.log_step = nn.Parameter(torch.zeros_like(start))

    def step(self) -> torch.Tensor:
        return self.start * (self.log_step / self.q).exp()

    def grid(self) -> Grid:
        """The grid as it is now."""
        return Grid(self.step().detach(), -self.q, self.q)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded: torch.Tensor = Lsq.apply(x, self.step(), self.q)
        return rounded


class SoftRounding(LearnedRounding):
    """Differentiable Soft Quantization (Gong et al. 2019): rounds hard, with the gradients of a soft staircase.

    Learned are the steps, and with them the range that is clipped to, and one sharpness alpha in (0, 0.5); the
    smaller it is, the nearer the staircase comes to rounding.
    """

    def __init__(self, start: torch.Tensor, bits: int) -> None:
        super().__init__(start, bits)
        self.sharpness = nn.Parameter(torch.logit(torch.full((), 2 * SHARPNESS, device=start.device)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = self.step()
        soft = staircase((x / step).clamp(-self.q, self.q), self.sharpness.sigmoid() / 2) * step
        return soft + (self.grid().round(x.detach()) - soft).detach()


def staircase(units: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """DSQ's soft rounding of values in units of the step: a tanh between each two integers, which it keeps.

    Equations 3 to 8 of Gong et al. 2019: phi(x) = tanh(k (x - m)) / (1 - alpha) around the middle m of two levels,
    k = log(2 / alpha - 1). `alpha` is in (0, 1).
    """
    below = units.detach().floor()
    k = (2 / alpha - 1).log()
    return below + 0.5 + torch.tanh(k * (units - below - 0.5)) / (2 * (1 - alpha))


class Scaled(nn.Module):
    """Parametrization of a tensor that is learned in a unit of its own; `unit` broadcasts with it."""

    unit: torch.Tensor

    def __init__(self, unit: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit)

    def right_inverse(self, value: torch.Tensor) -> torch.Tensor:
        return value / self.unit

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        return units * self.unit


class RoundedWeight(Scaled):
    """A weight learned in units of its first steps, rounded."""

    def __init__(self, rounding: LearnedRounding) -> None:
        super().__init__(rounding.start)
        self.rounding = rounding

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        rounded: torch.Tensor = self.rounding(units * self.unit)
        return rounded


class LowRankWeight(RoundedWeight):
    """A frozen weight W to which a learned low-rank product is added before it is rounded (LR-QAT).

    step * clip(round(W / step + A B)) of Bondarenko et al. 2024, A (out, rank) and B (rank, in); B starts at 0. A
    convolution's weight counts as (out, in * height * width). A's rows start with unit length, so that B is in steps.
    """

    def __init__(self, rounding: LearnedRounding, weight: torch.Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(rounding)
        flat = weight.flatten(1)
        rank = min(rank, *flat.shape)
        left = F.normalize(torch.randn(len(flat), rank, generator=generator), dim=1)
        self.left = nn.Parameter(left.to(weight.device))
        self.right = nn.Parameter(torch.zeros(rank, flat.shape[1], device=weight.device))

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        return super().forward(units + (self.left @ self.right).view(units.shape))


class LearnedTransform(nn.Module):
    """A scale and a shift of what layers read, shared by all readers of one tensor.

    `scale` (channels,) is the first one; the shift is learned in multiples of `unit` (channels,).
    """

    scale: torch.Tensor
    unit: torch.Tensor

    def __init__(self, scale: torch.Tensor, unit: torch.Tensor, bits: int, *, shift: bool) -> None:
        super().__init__()
        self.q = grid.levels(bits)
        self.register_buffer("scale", scale)
        self.register_buffer("unit", unit)
        self.log_scale = nn.Parameter(torch.zeros_like(scale))
        self.shift = nn.Parameter(torch.zeros_like(scale)) if shift else None

    def now(self) -> Transform:
        """The transformation as it is; differentiable."""
        shift = None if self.shift is None else self.shift * self.unit
        return Transform(self.scale * (self.log_scale / self.q).exp(), shift)

    def input(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.now().input(layer, x)


class ClippedWeight(nn.Module):
    """A frozen weight, transformed, and rounded to a grid over a learned share of each channel's range (OmniQuant).

    Learned weight clipping of Shao et al. 2024: the grid ends at sigmoid(clip) max|W'| for the transformed weight W'.
    `share` (out, 1, ...), in (0, 1), is the first one.
    """

    start: torch.Tensor

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
        if self.transform is not None:
            weight = self.transform.now().fold_weight(self._layer[0], weight)
        largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
        step = (self.start + 4 * self.clip / self.q).sigmoid() * largest / self.q
        rounded: torch.Tensor = Lsq.apply(weight, torch.where(largest == 0, torch.ones_like(step), step), self.q)
        return rounded


class ShiftedBias(nn.Module):
    """A frozen bias and what a learned shift of the layer's input adds to it."""

    def __init__(self, layer: nn.Module, transform: LearnedTransform) -> None:
        super().__init__()
        self.transform = transform
        self._layer, self._weight = (layer,), layer.get_parameter("weight").detach()

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        return bias + self.transform.now().shifted(self._layer[0], self._weight)


# Attaching to layers, and taking off


def attach(layer: nn.Module, name: str, by: nn.Module, *, train: bool) -> None:
    """Make the layer's weight or bias what `by` makes of the original, which is trained too or stays frozen."""
    parametrize.register_parametrization(layer, name, by, unsafe=True)  # unsafe: it need not be tried out at once
    layer.get_parameter(f"parametrizations.{name}.original").requires_grad_(train)


def trainable(clip_module: nn.Module, layers: Layers) -> dict[str, nn.Parameter]:
    """Every tensor that is to be trained, by name."""
    found = {name: value for name, value in clip_module.named_parameters() if value.requires_grad}
    for name, layer in layers.items():
        rounding = engine_layers.input_quantizer(layer).round
        if isinstance(rounding, nn.Module):
            found |= {f"{name}.input.{key}": value for key, value in rounding.named_parameters()}
    return found


@torch.no_grad()
def bake(layers: Layers) -> None:
    """Leave of all that was learned plain layers with rounded weights and fixed grids."""
    for layer in layers.values():
        for name in list(getattr(layer, "parametrizations", ())):
            parametrize.remove_parametrizations(layer, name)
        hook = engine_layers.input_quantizer(layer)
        if isinstance(hook.round, LearnedRounding):
            hook.round = hook.round.grid().round
        if isinstance(hook.transform, LearnedTransform):
            hook.transform = hook.transform.now()
        layer.requires_grad_(False)
