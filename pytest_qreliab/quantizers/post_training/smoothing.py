"""Methods that scale input channels: `smoothquant`, `outlier-suppression`, `awq`.

Each chooses one scale per input channel and group of layers that read the same tensor; the rest is `minmax`, but
for outlier suppression's activation ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine.grid import Grid
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.post_training.procedure import round_weight
from pytest_qreliab.quantizers.request import Request

SMOOTHQUANT_ALPHAS = [k / 20 for k in range(2, 19)]  # 0.1 to 0.9, as its authors search
AWQ_EXPONENTS = [k / 20 for k in range(20)]  # 0 to 0.95, as its authors do
SMALLEST = 1e-5  # of a channel's magnitude; also keeps a channel that is always 0 from dividing by 0


def smoothquant(clip: Clip, request: Request) -> Clip:
    """Input channels divided by max|x|^alpha / max|w|^(1 - alpha) (Xiao et al. 2023)."""
    return procedure.quantize(clip, request, transforms=_smoothquant)


def awq(clip: Clip, request: Request) -> Clip:
    """Input channels divided by mean|x|^e, with the exponent e that rounds the weights best (Lin et al. 2024).

    The activation-aware scaling alone: its authors' clipping search is not part of it.
    """
    return procedure.quantize(clip, request, transforms=_awq)


def outlier_suppression(clip: Clip, request: Request) -> Clip:
    """Norms' learned weights moved into the layers that read them; token-wise clipping (Wei et al. 2022)."""
    return procedure.quantize(clip, request, transforms=migrate_norms, input_rounder=_clip_tokens)


def migrate_norms(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    """Each layer that reads a norm divides its input by that norm's learned weight.

    Its authors' "gamma migration": channels that the norm blows up no longer stretch the range.
    """
    return {
        name: Transform(scale=_away_from_zero(reader.norm.weight.detach()))
        for reader in observers.readers(clip, layers, request)
        if reader.norm is not None
        for name in reader.names
    }


def _away_from_zero(scale: torch.Tensor) -> torch.Tensor:
    """The same, with magnitudes of at least a thousandth of the mean one: to divide by less helps no grid."""
    least = scale.abs().mean() / 1000
    return torch.where(scale.abs() < least, least * torch.where(scale < 0, -1.0, 1.0), scale)


# SmoothQuant and AWQ


def _smoothquant(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    largest = observers.observe(clip, layers, request, observers.MaxObserver)
    alpha = request.parameters.alpha
    inputs = observers.observe(clip, layers, request, observers.SampleObserver) if alpha == "search" else {}
    found: dict[str, Transform] = {}
    for names in _groups(clip, layers, request):
        of_input = largest[names[0]].largest
        assert of_input is not None
        of_weight = _largest_per_input([layers[name] for name in names])

        def scale(a: float, x: torch.Tensor = of_input, w: torch.Tensor = of_weight) -> torch.Tensor:
            return x.clamp(min=SMALLEST) ** a / w.clamp(min=SMALLEST) ** (1 - a)

        if alpha == "search":
            tried = (Transform(scale(a)) for a in SMOOTHQUANT_ALPHAS)
            best = _best(tried, [(layers[name], inputs[name].all()) for name in names], request)
        else:
            best = Transform(scale(alpha))
        found.update(dict.fromkeys(names, best))
    return found


def _awq(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    inputs = observers.observe(clip, layers, request, observers.SampleObserver)
    found: dict[str, Transform] = {}
    for names in _groups(clip, layers, request):
        sample = [(layers[name], inputs[name].all()) for name in names]
        layer, x = sample[0]
        mean = observers.tokens(layer, x).abs().mean(0).clamp(min=SMALLEST)

        def scale(exponent: float, mean: torch.Tensor = mean) -> torch.Tensor:
            scale = mean**exponent
            return scale / (scale.max() * scale.min()).sqrt()

        found.update(dict.fromkeys(names, _best((Transform(scale(e)) for e in AWQ_EXPONENTS), sample, request)))
    return found


def _groups(clip: Clip, layers: Layers, request: Request) -> Iterator[tuple[str, ...]]:
    """Layers that share an input, of those that the parameters let take part."""
    for reader in observers.readers(clip, layers, request):
        if request.parameters.layers == "all" or reader.norm is not None:
            yield reader.names


def _largest_per_input(layers: Sequence[nn.Module]) -> torch.Tensor:
    """The largest weight magnitude on each input channel, over all layers: (channels,)."""
    per_layer = []
    for layer in layers:
        weight = layer.get_parameter("weight").abs()
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        by_input = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        per_layer.append(by_input.amax((1, 3)).flatten())
    return torch.stack(per_layer).amax(0)


def _best(tried: Iterable[Transform], sample: Sequence[tuple[nn.Module, torch.Tensor]], request: Request) -> Transform:
    """The transform with which the rounded layers err least on a sample of their input, by squared error."""
    best, least = Transform(), torch.inf
    for transform in tried:
        error = 0.0
        for layer, x in sample:
            weight = layer.get_parameter("weight")
            rounded = round_weight(transform.fold_weight(layer, weight), grid.minmax, request)
            read = transform.input(layer, x)
            if request.bits.activations is not None:
                read = _round_input(read, layer, request)
            error += float((observers.output(layer, read, rounded) - observers.output(layer, x, weight)).square().sum())
        if error < least:
            best, least = transform, error
    return best


def _round_input(x: torch.Tensor, layer: nn.Module, request: Request) -> torch.Tensor:
    bits, symmetric = request.bits.activations, request.parameters.symmetric_activations
    assert bits is not None
    if request.parameters.activations == "dynamic":
        return input_quantizer.Dynamic(bits, symmetric)(x)
    lowest, highest = x.aminmax()
    return grid.fit_grid(lowest, highest, bits, symmetric).round(x)


# Outlier suppression's clipping


def _clip_tokens(clip: Clip, layers: Layers, request: Request) -> Mapping[str, input_quantizer.Round]:
    """Ranges that give up the few tokens with the largest values, where the layer's output is better for it.

    Coarse stage: the range ends at the quantile of the tokens' own extremes, from all tokens down to half of
    them, that errs least in the layer's output. Fine stage: that range scaled by 0.8 to 1.2.
    """
    bits, symmetric = request.bits.activations, request.parameters.symmetric_activations
    assert bits is not None
    if request.parameters.activations == "dynamic":
        return dict.fromkeys(layers, input_quantizer.Dynamic(bits, symmetric))
    inputs = observers.observe(clip, layers, request, observers.SampleObserver)
    return {name: _clipped(layers[name], seen.all(), bits, symmetric).round for name, seen in inputs.items()}


def _clipped(layer: nn.Module, x: torch.Tensor, bits: int, symmetric: bool) -> Grid:
    """The grid for inputs like `x` after both stages."""
    weight = layer.get_parameter("weight")
    wanted = observers.output(layer, x, weight)
    tokens = observers.tokens(layer, x)
    lows, highs = tokens.amin(1).sort(descending=True).values, tokens.amax(1).sort().values

    def lay(share: float, factor: float) -> Grid:
        last = round(share * (len(lows) - 1))
        return grid.fit_grid(factor * lows[last], factor * highs[last], bits, symmetric)

    def error(laid: Grid) -> float:
        return float((observers.output(layer, laid.round(x), weight) - wanted).square().sum())

    share = min((1 - k / 40 for k in range(21)), key=lambda tried: error(lay(tried, 1.0)))
    factor = min((1 + k / 40 for k in range(-8, 9)), key=lambda tried: error(lay(share, tried)))
    return lay(share, factor)
