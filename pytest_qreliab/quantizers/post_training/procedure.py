"""Post-training quantization: transform, find the activations' ranges, round the weights.

Every method is this one procedure with some of its three parts of its own. All observation is of the full-precision
model, transformed or not, before any rounding. Every Linear and convolution of the towers in scope takes part, with
attention and final projections. Embeddings, norms and biases stay in full precision. Weights are rounded once, in
place; activations are rounded by hooks, all in float32.
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
    """Return a quantized copy of a model.

    Args:
        clip: The full-precision model, which is left as it is.
        request: What is asked for.
        transforms: Finds the transformations of layers' inputs; None: there are none.
        rounder: Makes the function that rounds a weight; None: to the nearest, over the full range.
        input_rounder: Makes the functions that round inputs; None: to the nearest, over the range that was seen.

    Raises:
        InputError: There is nothing to quantize in scope.
        ValueError: Calibration data are needed, and the request has none.
    """
    clip, layers = engine_layers.unpack_layers(clip, request.scope)
    if transforms is not None:
        for name, transform in transforms(clip, layers, request).items():
            input_quantizer.transform_input(layers[name], transform)
        request = replace(request, cached=no_cache)  # the layers read other values now
    inputs: Mapping[str, input_quantizer.Round] = {}
    if request.bits.activations is not None:
        inputs = (input_rounder or from_range(grid.minmax))(clip, layers, request)
    round_weight = (rounder or nearest(grid.minmax))(clip, layers, request)
    for name, layer in layers.items():
        layer.get_parameter("weight").copy_(round_weight(name, layer))
        if name in inputs:
            input_quantizer.ensure_input_quantizer(layer).round = inputs[name]
    return clip


def nearest(rule: RangeRule) -> Rounder:
    """Return the rounder of weights to the nearest grid points.

    The rule finds the range of the grids.
    """

    def rounder(clip: Clip, layers: Layers, request: Request) -> Callable[[str, nn.Module], torch.Tensor]:
        return lambda name, layer: round_weight(layer.get_parameter("weight"), rule, request)

    return rounder


def round_weight(weight: torch.Tensor, rule: RangeRule, request: Request) -> torch.Tensor:
    """Return a weight (out, ...), rounded to the nearest grid points.

    The request has the bits and the granularity.
    """
    bits, symmetric = request.bits.weights, request.parameters.symmetric
    rows = grid.to_rows(weight, request.parameters.granularity)
    return grid.from_rows(grid.fit_grid(*rule(rows, bits, symmetric), bits, symmetric).round(rows), weight)


def from_range(rule: RangeRule) -> InputRounder:
    """Return the rounder of inputs to the nearest grid points.

    The rule finds the range of the grids in calibration data.
    """

    def rounder(clip: Clip, layers: Layers, request: Request) -> Mapping[str, input_quantizer.Round]:
        bits, symmetric = request.require_activation_bits(), request.parameters.symmetric_activations
        if request.parameters.activations == "dynamic":
            return dict.fromkeys(layers, input_quantizer.DynamicQuantizer(bits, symmetric))

        def observe() -> dict[str, torch.Tensor]:
            found = observers.observe(clip, layers, request, observers.ValueObserver)
            return {name: observer.row() for name, observer in found.items()}

        inputs = request.cached(f"values of {request.parameters.images} images in scope {request.scope}", observe)
        return {
            name: grid.fit_grid(lowest[0, 0], highest[0, 0], bits, symmetric).round
            for name, values in inputs.items()
            for lowest, highest in [rule(values, bits, symmetric)]
        }

    return rounder
