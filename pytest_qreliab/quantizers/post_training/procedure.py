"""Post-training quantization: transform, find the activations' ranges, round the weights.

Every method is this one procedure with some of its three parts of its own. All observation is of the
full-precision model, transformed or not, before any rounding. Every Linear and convolution of the towers in
scope takes part, attention and final projections included; embeddings, norms and biases stay in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.grid import RangeRule
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.request import Request, no_cache

Transforms = Callable[[Clip, Layers, Request], Mapping[str, Transform]]
# From the layers, observed if need be, to the function that rounds the weight of one of them.
Rounder = Callable[[Clip, Layers, Request], Callable[[str, nn.Module], torch.Tensor]]
# From the layers, observed, to the rounding of the input of each.
InputRounder = Callable[[Clip, Layers, Request], Mapping[str, input_quantizer.Round]]


@torch.no_grad()
def quantize(
    clip: Clip,
    request: Request,
    *,
    transforms: Transforms | None = None,
    rounder: Rounder | None = None,
    input_rounder: InputRounder | None = None,
) -> Clip:
    """A quantized copy of `clip`; the parts left out are those of `minmax`."""
    clip, layers = engine_layers.unpack_layers(clip, request.scope)
    if transforms is not None:
        for name, by in transforms(clip, layers, request).items():
            input_quantizer.transform(layers[name], by)
        request = replace(request, cached=no_cache)  # the layers read other values now
    inputs: Mapping[str, input_quantizer.Round] = {}
    if request.bits.activations is not None:
        inputs = (input_rounder or from_range(grid.minmax))(clip, layers, request)
    round_weight = (rounder or nearest(grid.minmax))(clip, layers, request)
    for name, layer in layers.items():
        layer.get_parameter("weight").copy_(round_weight(name, layer))
        if name in inputs:
            input_quantizer.input_quantizer(layer).round = inputs[name]
    return clip


def nearest(rule: RangeRule) -> Rounder:
    """Round to nearest, on grids over the range that the rule finds."""

    def rounder(clip: Clip, layers: Layers, request: Request) -> Callable[[str, nn.Module], torch.Tensor]:
        return lambda name, layer: round_weight(layer.get_parameter("weight"), rule, request)

    return rounder


def round_weight(weight: torch.Tensor, rule: RangeRule, request: Request) -> torch.Tensor:
    """The weight (out, ...), rounded to nearest with the granularity that is asked for."""
    bits, symmetric = request.bits.weights, request.parameters.symmetric
    rows = grid.rows(weight, request.parameters.granularity)
    return grid.from_rows(grid.fit_grid(*rule(rows, bits, symmetric), bits, symmetric).round(rows), weight)


def from_range(rule: RangeRule) -> InputRounder:
    """Round each layer's input to a grid over the range that the rule finds in calibration data."""

    def rounder(clip: Clip, layers: Layers, request: Request) -> Mapping[str, input_quantizer.Round]:
        bits, symmetric = request.bits.activations, request.parameters.symmetric_activations
        assert bits is not None
        if request.parameters.activations == "dynamic":
            return dict.fromkeys(layers, input_quantizer.Dynamic(bits, symmetric))

        def observe() -> dict[str, torch.Tensor]:
            return {
                name: of.row() for name, of in observers.observe(clip, layers, request, observers.ValueObserver).items()
            }

        inputs = request.cached(f"values of {request.parameters.images} images in scope {request.scope}", observe)
        return {
            name: grid.fit_grid(lowest[0, 0], highest[0, 0], bits, symmetric).round
            for name, values in inputs.items()
            for lowest, highest in [rule(values, bits, symmetric)]
        }

    return rounder
