"""`smoothquant` and `awq`: input channels are scaled before rounding.

Each method chooses one scale for each input channel of a group of layers that read the same tensor. The rest is
`minmax`, but that `awq` clips weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.post_training.clipping import clip_by_output
from pytest_qreliab.quantizers.post_training.procedure import round_weight
from pytest_qreliab.quantizers.request import Request

SMOOTHQUANT_ALPHAS = [k / 20 for k in range(2, 19)]  # 0.1 to 0.9, as its authors search
AWQ_EXPONENTS = [k / 20 for k in range(20)]  # 0 to 0.95, as its authors do
SMALLEST = 1e-5  # of a channel's magnitude; also keeps a channel that is always 0 from dividing by 0


def smoothquant(clip: Clip, request: Request) -> Clip:
    """Return a copy with input channels smoothed by SmoothQuant.

    They are divided by max|x|^alpha / max|w|^(1 - alpha) (Xiao et al. 2023).
    """
    return procedure.quantize(clip, request, transforms=_smoothquant)


def awq(clip: Clip, request: Request) -> Clip:
    """Return a copy with input channels scaled and weights clipped by AWQ.

    Channels are divided by mean|x|^e, with the exponent e that rounds the weights best. Then the weights of each grid
    are clipped as far as that rounds their part of the output better (Lin et al. 2024).
    """
    return procedure.quantize(clip, request, transforms=_awq, rounder=clip_by_output)


def _smoothquant(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    maxima = observers.observe(clip, layers, request, observers.MaxObserver)
    alpha = request.parameters.alpha
    inputs = observers.observe(clip, layers, request, observers.SampleObserver) if alpha == "search" else {}
    found: dict[str, Transform] = {}
    for names in _groups(clip, layers, request):
        largest_input = maxima[names[0]].largest
        largest_weight = largest_per_input([layers[name] for name in names])

        def scale(a: float, x: torch.Tensor = largest_input, w: torch.Tensor = largest_weight) -> torch.Tensor:
            return x.clamp(min=SMALLEST) ** a / w.clamp(min=SMALLEST) ** (1 - a)

        if alpha == "search":
            candidates = (Transform(scale(a)) for a in SMOOTHQUANT_ALPHAS)
            best = _best(candidates, {name: (layers[name], inputs[name].all()) for name in names}, request)
        else:
            best = Transform(scale(alpha))
        found.update(dict.fromkeys(names, best))
    return found


def _awq(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    inputs = observers.observe(clip, layers, request, observers.SampleObserver)
    found: dict[str, Transform] = {}
    for names in _groups(clip, layers, request):
        sample = {name: (layers[name], inputs[name].all()) for name in names}
        layer, x = sample[names[0]]
        mean = observers.tokens(layer, x).abs().mean(0).clamp(min=SMALLEST)

        def scale(exponent: float, mean: torch.Tensor = mean) -> torch.Tensor:
            scale = mean**exponent
            return scale / (scale.max() * scale.min()).sqrt()

        found.update(dict.fromkeys(names, _best((Transform(scale(e)) for e in AWQ_EXPONENTS), sample, request)))
    return found


def _groups(clip: Clip, layers: Layers, request: Request) -> Iterator[tuple[str, ...]]:
    """Yield the names of layers that share an input and take part."""
    for shared in observers.find_shared_inputs(clip, layers, request):
        if request.parameters.scaled == "all" or shared.norm is not None:
            yield shared.layers


def largest_per_input(layers: Sequence[nn.Module]) -> torch.Tensor:
    """Return the largest weight magnitude on each input channel, (channels,)."""
    per_layer = []
    for layer in layers:
        weight = layer.get_parameter("weight").abs()
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        by_input = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        per_layer.append(by_input.amax((1, 3)).flatten())
    return torch.stack(per_layer).amax(0)


def _best(
    candidates: Iterable[Transform], sample: Mapping[str, tuple[nn.Module, torch.Tensor]], request: Request
) -> Transform:
    """Return the transform with which the rounded layers err least.

    The error is the squared one on a sample of their input.
    """
    best, least = Transform(), torch.inf
    for transform in candidates:
        error = 0.0
        for name, (layer, x) in sample.items():
            weight = layer.get_parameter("weight")
            rounded = round_weight(transform.fold_weight(layer, weight), grid.minmax, request.weight_scheme(name))
            read = transform.input(layer, x)
            scheme = request.input_scheme(name)
            if scheme is not None:
                read = _round_input(read, scheme, request)
            error += float((observers.output(layer, read, rounded) - observers.output(layer, x, weight)).square().sum())
        if error < least:
            best, least = transform, error
    return best


def _round_input(x: torch.Tensor, scheme: Scheme, request: Request) -> torch.Tensor:
    rounding = input_quantizer.without_ranges(scheme, request.parameters.activations == "dynamic")
    return (rounding or input_quantizer.from_bounds(scheme, *x.aminmax()))(x)
