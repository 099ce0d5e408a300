"""`outlier-suppression`: migrated norm weights and token-wise clipping (Wei et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import input_quantizer, observers
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request


def outlier_suppression(clip: Clip, request: Request) -> Clip:
    """Return a copy with migrated norms and token-wise clipping.

    Weights are rounded as by `minmax`.
    """
    return procedure.quantize(clip, request, transforms=migrate_norms, input_rounder=_clip_tokens)


def migrate_norms(clip: Clip, layers: Layers, request: Request) -> dict[str, Transform]:
    """Return transformations that divide by a norm's learned weight.

    Each layer that reads a norm has one. This is the authors' "gamma migration": channels that the norm blows up no
    longer stretch the range.
    """
    return {
        name: Transform(scale=_away_from_zero(shared.norm.weight.detach()))
        for shared in observers.find_shared_inputs(clip, layers, request)
        if shared.norm is not None
        for name in shared.layers
    }


def _away_from_zero(scale: torch.Tensor) -> torch.Tensor:
    """Raise magnitudes to a thousandth of their mean, at least.

    To divide by less helps no grid.
    """
    least = scale.abs().mean() / 1000
    return torch.where(scale.abs() < least, least * torch.where(scale < 0, -1.0, 1.0), scale)


def _clip_tokens(clip: Clip, layers: Layers, request: Request) -> Mapping[str, input_quantizer.Round]:
    """Make ranges that give up the tokens with the largest values.

    They are given up if the layer's output is better for it. Coarse stage: the range ends at a quantile of the tokens'
    own extremes, from all tokens down to half of them. The one that errs least in the layer's output is taken. Fine
    stage: that range is scaled by 0.8 to 1.2.
    """
    rounds, schemes = procedure.split_ranges(layers, request)
    observed = {name: layers[name] for name in schemes}
    inputs = observers.observe(clip, observed, request, observers.SampleObserver) if observed else {}
    return rounds | {name: _fit_clipped(layers[name], seen.all(), schemes[name]) for name, seen in inputs.items()}


def _fit_clipped(layer: nn.Module, x: torch.Tensor, scheme: Scheme) -> input_quantizer.Round:
    """Return the rounding of inputs like `x` after both stages."""
    weight = layer.get_parameter("weight")
    wanted = observers.output(layer, x, weight)
    tokens = observers.tokens(layer, x)
    lows, highs = tokens.amin(1).sort(descending=True).values, tokens.amax(1).sort().values

    def fit(share: float, factor: float) -> input_quantizer.Round:
        last = round(share * (len(lows) - 1))
        return input_quantizer.from_bounds(scheme, factor * lows[last], factor * highs[last])

    def error(candidate: input_quantizer.Round) -> float:
        return float((observers.output(layer, candidate(x), weight) - wanted).square().sum())

    share = min((1 - k / 40 for k in range(21)), key=lambda tried: error(fit(tried, 1.0)))
    factor = min((1 + k / 40 for k in range(-8, 9)), key=lambda tried: error(fit(share, tried)))
    return fit(share, factor)
