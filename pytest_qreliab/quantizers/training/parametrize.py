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

import torch
from torch import nn
from torch.nn.utils import parametrize

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import learned
from pytest_qreliab.quantizers.training.learned import LearnedRounding, LearnedTransform, SoftRounding

RANGE_IMAGES = 128  # images from which the activations' first ranges are taken
# Puts what is to be learned on the layers; the first steps of the inputs are given by name.
Parametrize = Callable[[Clip, Layers, Request, Mapping[str, torch.Tensor]], None]


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
        if isinstance(hook.transform, LearnedTransform):
            hook.transform = hook.transform.now()
        layer.requires_grad_(False)


@torch.no_grad()
def input_steps(clip: Clip, layers: Layers, request: Request) -> dict[str, torch.Tensor]:
    """Return the step of least squared error of each layer's input.

    Args:
        clip: The model.
        layers: Its layers by name.
        request: Gives the bits and the calibration data.

    Returns:
        Scalars by name, of the layers that calibration reaches. There are none for weights only.
    """
    bits = request.bits.activations
    if bits is None:
        return {}
    seen = observers.observe(clip, layers, _for_ranges(request), observers.ValueObserver)
    return {name: grid.fit_grid(*grid.mse(v.row(), bits, True), bits, True).scale[0, 0] for name, v in seen.items()}


def _for_ranges(request: Request) -> Request:
    """Return the request with as few images as ranges take."""
    few = min(RANGE_IMAGES, request.parameters.images)
    return replace(request, parameters=request.parameters.model_copy(update={"images": few}))


@torch.no_grad()
def weight_steps(layer: nn.Module, bits: int) -> torch.Tensor:
    """Return the steps of least squared error of a weight.

    Their shape is (out, 1, ...).
    """
    weight = layer.get_parameter("weight")
    rows = grid.to_rows(weight, "channel")
    steps = grid.fit_grid(*grid.mse(rows, bits, True), bits, True).scale
    return steps.view(-1, *(1,) * (weight.ndim - 1))


def learn_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """Make weights, biases and all steps learnable, with LSQ's gradients."""
    _learn_weights(layers, request, inputs, LearnedRounding)


def learn_soft_steps(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """Make weights, biases, steps and a sharpness learnable, with DSQ's gradients."""
    _learn_weights(layers, request, inputs, SoftRounding)


def _learn_weights(
    layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor], kind: type[LearnedRounding]
) -> None:
    for name, layer in layers.items():
        start = weight_steps(layer, request.bits.weights)
        if layer.bias is not None:
            attach(layer, "bias", learned.Scaled(start.flatten()), train=True)
        attach(layer, "weight", learned.RoundedWeight(kind(start, request.bits.weights)), train=True)
        _learn_input(name, layer, request, inputs, kind)


def _learn_input(
    name: str,
    layer: nn.Module,
    request: Request,
    inputs: Mapping[str, torch.Tensor],
    kind: type[LearnedRounding] = LearnedRounding,
) -> None:
    if name in inputs:
        rounding = kind(inputs[name], request.require_activation_bits())
        input_quantizer.ensure_input_quantizer(layer).round = rounding


def learn_low_rank(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """Make low-rank changes of frozen weights and all steps learnable (LR-QAT)."""
    generator = torch.Generator().manual_seed(request.parameters.seed)
    bits = request.bits.weights
    for name, layer in layers.items():
        rounding = LearnedRounding(weight_steps(layer, bits), bits)
        weight = layer.get_parameter("weight")
        changed = learned.LowRankWeight(rounding, weight, request.parameters.rank, generator)
        attach(layer, "weight", changed, train=False)
        _learn_input(name, layer, request, inputs)


def learn_clipping(clip: Clip, layers: Layers, request: Request, inputs: Mapping[str, torch.Tensor]) -> None:
    """Make clipping and norms' scale and shift learnable (OmniQuant).

    The weights are frozen. The scale and shift are those of what norms write.
    """
    bits = request.bits.weights
    transforms = _learned_transforms(clip, layers, request)
    for name, layer in layers.items():
        transform = transforms.get(name)
        if transform is not None:
            input_quantizer.ensure_input_quantizer(layer).transform = transform
            if transform.shift is not None:
                if layer.bias is None:
                    layer.bias = nn.Parameter(layer.get_parameter("weight").new_zeros(len(layer.weight)))
                attach(layer, "bias", learned.ShiftedBias(layer, transform), train=False)
        weight = layer.get_parameter("weight")
        largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
        share = weight_steps(layer, bits) * grid.levels(bits) / largest
        clipped = learned.ClippedWeight(layer, share.nan_to_num(1.0).clamp(0.01, 0.999), bits, transform)
        attach(layer, "weight", clipped, train=False)
        _learn_input(name, layer, request, inputs)


def _learned_transforms(clip: Clip, layers: Layers, request: Request) -> dict[str, LearnedTransform]:
    """Return a transformation for each layer that reads a norm.

    Layers of one norm share it.
    """
    bits, few = request.bits.weights, _for_ranges(request)
    normed = [shared.layers for shared in observers.find_shared_inputs(clip, layers, few) if shared.norm is not None]
    observed = {name: layers[name] for names in normed for name in names}
    maxima = observers.observe(clip, observed, few, observers.MaxObserver)
    transforms: dict[str, LearnedTransform] = {}
    for names in normed:
        largest = maxima[names[0]].largest
        shift = not any(any(getattr(layers[name], "padding", ())) for name in names)
        transform = LearnedTransform(torch.ones_like(largest), largest / grid.levels(bits), bits, shift=shift)
        transforms |= dict.fromkeys(names, transform)
    return transforms
