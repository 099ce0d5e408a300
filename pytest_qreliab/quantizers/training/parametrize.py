"""Attach trainable quantizers to layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import learned
from pytest_qreliab.quantizers.training.learned import LearnedRounding, LearnedTransform, SoftRounding

RANGE_IMAGES = 128  # images from which the activations' first ranges are taken
# Puts what is to be learned on the layers; the first steps of the inputs are given by name.
Attach = Callable[[Clip, Layers, Request, Mapping[str, torch.Tensor]], None]


@torch.no_grad()
def input_steps(clip: Clip, layers: Layers, request: Request) -> dict[str, torch.Tensor]:
    """For each layer that calibration reaches, the step of least squared error of its input; none for weights only."""
    bits = request.bits.activations
    if bits is None:
        return {}
    seen = observers.observe(clip, layers, _for_ranges(request), observers.ValueObserver)
    return {name: grid.fit_grid(*grid.mse(v.row(), bits, True), bits, True).scale[0, 0] for name, v in seen.items()}


def _for_ranges(request: Request) -> Request:
    """The same, with as few images as ranges take."""
    few = min(RANGE_IMAGES, request.parameters.images)
    return replace(request, parameters=request.parameters.model_copy(update={"images": few}))


@torch.no_grad()
def weight_steps(layer: nn.Module, bits: int) -> torch.Tensor:
    """The steps of least squared error of the layer's weight, (out, 1, ...)."""
    weight = layer.get_parameter("weight")
    rows = grid.rows(weight, "channel")
    steps = grid.fit_grid(*grid.mse(rows, bits, True), bits, True).scale
    return steps.view(-1, *(1,) * (weight.ndim - 1))


def learn_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """Weights, biases, and the steps of weights and inputs: LSQ."""
    _learn_weights(layers, request, inputs, LearnedRounding)


def learn_soft_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """The same, with DSQ's gradients and sharpness."""
    _learn_weights(layers, request, inputs, SoftRounding)


def _learn_weights(
    layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor], kind: type[LearnedRounding]
) -> None:
    for name, layer in layers.items():
        start = weight_steps(layer, request.bits.weights)
        if layer.bias is not None:
            learned.attach(layer, "bias", learned.Scaled(start.flatten()), train=True)
        learned.attach(layer, "weight", learned.RoundedWeight(kind(start, request.bits.weights)), train=True)
        _learn_input(name, layer, request, inputs, kind)


def _learn_input(
    name: str,
    layer: nn.Module,
    request: Request,
    inputs: Mapping[str, torch.Tensor],
    kind: type[LearnedRounding] = LearnedRounding,
) -> None:
    if name in inputs:
        assert request.bits.activations is not None
        input_quantizer.input_quantizer(layer).round = kind(inputs[name], request.bits.activations)


def learn_low_rank(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """A low-rank change of every frozen weight, and the steps: LR-QAT."""
    generator = torch.Generator().manual_seed(request.parameters.seed)
    bits = request.bits.weights
    for name, layer in layers.items():
        rounding = LearnedRounding(weight_steps(layer, bits), bits)
        weight = layer.get_parameter("weight")
        by = learned.LowRankWeight(rounding, weight, request.parameters.rank, generator)
        learned.attach(layer, "weight", by, train=False)
        _learn_input(name, layer, request, inputs)


def learn_clipping(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """The clipping of frozen weights, and a scale and shift of what a norm makes: OmniQuant."""
    bits = request.bits.weights
    observed = _for_ranges(request)
    transforms: dict[str, LearnedTransform] = {}
    normed = [readers.names for readers in observers.readers(clip, layers, observed) if readers.norm is not None]
    largest = observers.observe(
        clip, {name: layers[name] for names in normed for name in names}, observed, observers.MaxObserver
    )
    for names in normed:
        seen = largest[names[0]].largest
        assert seen is not None
        shift = not any(any(getattr(layers[name], "padding", ())) for name in names)
        transform = LearnedTransform(torch.ones_like(seen), seen / grid.levels(bits), bits, shift=shift)
        transforms |= dict.fromkeys(names, transform)
    for name, layer in layers.items():
        by = transforms.get(name)
        if by is not None:
            input_quantizer.input_quantizer(layer).transform = cast(Transform, by)  # until it is fixed, by `bake`
            if by.shift is not None:
                if layer.bias is None:
                    layer.bias = nn.Parameter(layer.get_parameter("weight").new_zeros(len(layer.weight)))
                learned.attach(layer, "bias", learned.ShiftedBias(layer, by), train=False)
        weight = layer.get_parameter("weight")
        largest_weight = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
        share = weight_steps(layer, bits) * grid.levels(bits) / largest_weight
        clipped = learned.ClippedWeight(layer, share.nan_to_num(1.0).clamp(0.01, 0.999), bits, by)
        learned.attach(layer, "weight", clipped, train=False)
        _learn_input(name, layer, request, inputs)
