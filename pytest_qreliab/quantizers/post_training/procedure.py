"""Post-training quantization: transform, find the activations' ranges, round the weights.

Every method is this one procedure with some of its three parts of its own. Inputs get their ranges in the
full-precision model, transformed or not, and are rounded from then on; then weights are. Every Linear and convolution
of the towers in scope takes part, with attention and final projections. Embeddings, norms and biases stay in full
precision. Weights are rounded once, in place; activations are rounded by hooks, all in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.grid import RangeRule, Scheme
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.request import Request, no_cache

Transforms = Callable[[Clip, Layers, Request], Mapping[str, Transform]]
# Rounds the weights of layers, in place. Inputs are rounded already.
Rounder = Callable[[Clip, Layers, Request], None]
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
        rounder: Rounds the weights; None: to the nearest, over the full range.
        input_rounder: Makes the functions that round inputs; None: to the nearest, over the range that was seen.

    Raises:
        InputError: There is nothing to quantize in scope.
        ValueError: Calibration data are needed, and the request has none.
    """
    clip, layers, request = engine_layers.prepare_layers(clip, request)
    if transforms is not None:
        for name, transform in transforms(clip, layers, request).items():
            input_quantizer.transform_input(layers[name], transform)
        request = replace(request, cached=no_cache)  # the layers read other values now
    read = {name: layer for name, layer in layers.items() if request.input_scheme(name) is not None}
    inputs = (input_rounder or from_range(grid.minmax))(clip, read, request) if read else {}
    for name, rounding in inputs.items():
        input_quantizer.ensure_input_quantizer(layers[name]).round = rounding
    (rounder or nearest(grid.minmax))(clip, layers, request)
    return clip


def nearest(rule: RangeRule) -> Rounder:
    """Return the rounder of weights to the nearest grid points.

    The rule finds the range of the grids.
    """

    def round_weights(clip: Clip, layers: Layers, request: Request) -> None:
        for name, layer in layers.items():
            weight = layer.get_parameter("weight")
            weight.copy_(round_weight(weight, rule, request.weight_scheme(name)))

    return round_weights


def round_weight(weight: torch.Tensor, rule: RangeRule, scheme: Scheme) -> torch.Tensor:
    """Return a weight (out, ...), rounded to the nearest points of the grids that a rule finds."""
    rows = grid.to_rows(weight, scheme.granularity)
    return grid.from_rows(scheme.fit_values(rows, rule).round(rows), weight, scheme.granularity)


def from_range(rule: RangeRule) -> InputRounder:
    """Return the rounder of inputs to the nearest grid points.

    The rule finds the range of the grids in calibration data.
    """

    def rounder(clip: Clip, layers: Layers, request: Request) -> Mapping[str, input_quantizer.Round]:
        rounds, schemes = split_ranges(layers, request)

        def observe() -> dict[str, torch.Tensor]:
            observed = {name: layers[name] for name in schemes}
            found = observers.observe(clip, observed, request, observers.ValueObserver)
            return {name: observer.row() for name, observer in found.items()}

        if schemes:
            kept = set(layers) == set(schemes) and not request.parameters.layers  # the next quantizer wants the same
            name = f"values of {request.parameters.images} images in scope {request.scope}"
            inputs = request.cached(name, observe) if kept else observe()
            for layer, values in inputs.items():
                lowest, highest = rule(values, schemes[layer])
                rounds[layer] = input_quantizer.from_bounds(schemes[layer], lowest[0, 0], highest[0, 0])
        return rounds

    return rounder


def split_ranges(layers: Layers, request: Request) -> tuple[dict[str, input_quantizer.Round], dict[str, Scheme]]:
    """Return the roundings of inputs that need no range, and the schemes of those that do, by layer."""
    rounds, schemes = {}, {}
    for name in layers:
        scheme = request.input_scheme(name)
        if scheme is not None:
            rounding = input_quantizer.without_ranges(scheme, request.parameters.activations == "dynamic")
            if rounding is None:
                schemes[name] = scheme
            else:
                rounds[name] = rounding
    return rounds, schemes
