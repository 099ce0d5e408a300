"""Put what is learned on layers, and take it off again.

While a model trains, a layer's weight and bias are torch parametrizations and its input is rounded by a module in its
InputQuantizer. `bake` turns all of it into plain layers with fixed grids, as every other quantizer leaves them.

Grids start at the ranges of least squared error. The first step of the LSQ paper, 2 mean|x| / sqrt(q), is not used: at
8 bits its grid ends at 22 times the mean magnitude, far beyond most weights, and 100 steps leave it with 4 times the
error of features (26 times, if inputs start so too).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine.grid import Grid, Scheme
from pytest_qreliab.quantizers.engine.input_quantizer import Round
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import learned
from pytest_qreliab.quantizers.training.clipping import LearnedTransform
from pytest_qreliab.quantizers.training.learned import LearnedRounding, SoftRounding, StraightThrough

RANGE_IMAGES = 128  # images from which the activations' first ranges are taken
# Puts what is to be learned on the layers; the first roundings of the inputs are given by name.
Parametrize = Callable[[Clip, Layers, Request, Mapping[str, Round]], None]


def attach(layer: nn.Module, name: str, parametrization: nn.Module, *, train: bool) -> None:
    """Compute a tensor of a layer from the original by a module.

    Args:
        layer: The layer, which is changed in place.
        name: The tensor, "weight" or "bias".
        parametrization: Computes the tensor from the original.
        train: Train the original too, and not only the parameters of the module.
    """
    # unsafe: it need not be tried out at once
    parametrize.register_parametrization(layer, name, parametrization, unsafe=True)
    layer.get_parameter(f"parametrizations.{name}.original").requires_grad_(train)


def trainable(module: nn.Module, layers: Layers) -> dict[str, nn.Parameter]:
    """Return every tensor that is to be trained, by name.

    Args:
        module: The model.
        layers: Its layers by name, whose inputs may have a learned rounding.
    """
    found = {name: value for name, value in module.named_parameters() if value.requires_grad}
    for name, layer in layers.items():
        rounding = input_quantizer.ensure_input_quantizer(layer).round
        if isinstance(rounding, nn.Module):
            found |= {f"{name}.input.{key}": value for key, value in rounding.named_parameters()}
    return found


@torch.no_grad()
def bake(layers: Layers) -> None:
    """Fix all that was learned, in place.

    What is left are rounded weights and fixed grids.
    """
    for layer in layers.values():
        for name in list(getattr(layer, "parametrizations", ())):
            parametrize.remove_parametrizations(layer, name)
        hook = input_quantizer.ensure_input_quantizer(layer)
        if isinstance(hook.round, LearnedRounding):
            hook.round = hook.round.grid().round
        elif isinstance(hook.round, StraightThrough):
            hook.round = hook.round.rounding
        if isinstance(hook.transform, LearnedTransform):
            hook.transform = hook.transform.now()
        layer.requires_grad_(False)


@torch.no_grad()
def first_inputs(clip: Clip, layers: Layers, request: Request) -> dict[str, Round]:
    """Return the first rounding of each layer's input, over the range of least squared error.

    Args:
        clip: The model.
        layers: Its layers by name.
        request: Gives the formats and the calibration data.

    Returns:
        Roundings by name, of the layers that calibration reaches and whose input is to be rounded.
    """
    return dict(procedure.from_range(grid.mse)(clip, layers, _for_ranges(request)))


def _for_ranges(request: Request) -> Request:
    """Return the request with as few images as ranges take."""
    few = min(RANGE_IMAGES, request.parameters.images)
    return replace(request, parameters=request.parameters.model_copy(update={"images": few}))


@torch.no_grad()
def first_rounding(
    weight: torch.Tensor, scheme: Scheme, kind: type[LearnedRounding] = LearnedRounding
) -> tuple[nn.Module, torch.Tensor]:
    """Return the first rounding of a weight's rows, and the step at each element.

    Args:
        weight: The weight (out, ...).
        scheme: The values that it may be rounded to.
        kind: Learns the steps, which start at those of least squared error, if they are free.

    Returns:
        The rounding of (rows, n), and the steps (out, ...). A float's steps grow with its values: it is that at the
        root mean square of the row. A row of zeros has the mean step of the others.
    """
    rows = grid.to_rows(weight, scheme.granularity)
    size = rows.square().mean(1, keepdim=True).sqrt()
    rounding: nn.Module = StraightThrough(lambda values: scheme.fit_values(values, grid.minmax).round(values))
    step = size * 2.0**-scheme.number.mantissa
    if scheme.number.scale == "float32":
        laid = scheme.fit_values(rows, grid.mse)
        rounding = kind(laid)
        step = laid.scale if scheme.number.kind == "integer" else step
    used = size > 0
    step = torch.where(used, step, step[used].mean() if bool(used.any()) else torch.ones_like(step))
    return rounding, grid.from_rows(step.expand_as(rows), weight, scheme.granularity)


def learn_weights(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, Round]) -> None:
    """Make weights and biases learnable, and round nothing."""
    for name, layer in layers.items():
        _, step = first_rounding(layer.get_parameter("weight"), request.weight_scheme(name))
        _learn_bias(layer, step)
        attach(layer, "weight", learned.Scaled(step), train=True)


def learn_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, Round]) -> None:
    """Make weights, biases and all steps learnable, with LSQ's gradients."""
    _learn_rounded_weights(layers, request, inputs, LearnedRounding)


def learn_soft_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, Round]) -> None:
    """Make weights, biases, steps and a sharpness learnable, with DSQ's gradients."""
    _learn_rounded_weights(layers, request, inputs, SoftRounding)


def _learn_rounded_weights(
    layers: Layers, request: Request, inputs: Mapping[str, Round], kind: type[LearnedRounding]
) -> None:
    for name, layer in layers.items():
        scheme = request.weight_scheme(name)
        rounding, step = first_rounding(layer.get_parameter("weight"), scheme, kind)
        _learn_bias(layer, step)
        attach(layer, "weight", learned.RoundedWeight(rounding, step, scheme.granularity), train=True)
        _learn_input(name, layer, inputs, kind)


def _learn_bias(layer: nn.Module, step: torch.Tensor) -> None:
    """Make the bias of a layer learnable, if it has one, in the mean steps of its weights."""
    if layer.bias is not None:
        attach(layer, "bias", learned.Scaled(step.flatten(1).mean(1)), train=True)


def _learn_input(
    name: str, layer: nn.Module, inputs: Mapping[str, Round], kind: type[LearnedRounding] = LearnedRounding
) -> None:
    if name in inputs:
        start = getattr(inputs[name], "__self__", None)
        learns = isinstance(start, Grid) and start.number.scale == "float32"
        rounding = kind(cast(Grid, start)) if learns else StraightThrough(inputs[name])
        input_quantizer.ensure_input_quantizer(layer).round = rounding


def learn_low_rank(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, Round]) -> None:
    """Make low-rank changes of frozen weights and all steps learnable (LR-QAT)."""
    generator = torch.Generator().manual_seed(request.parameters.seed)
    for name, layer in layers.items():
        scheme = request.weight_scheme(name)
        rounding, step = first_rounding(layer.get_parameter("weight"), scheme)
        changed = learned.LowRankWeight(
            rounding,
            step,
            scheme.granularity,
            rank=request.parameters.rank,
            alpha=request.parameters.alpha,
            generator=generator,
        )
        attach(layer, "weight", changed, train=False)
        _learn_input(name, layer, inputs)
