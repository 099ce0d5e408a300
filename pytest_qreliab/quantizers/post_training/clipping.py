"""The clipping of weights by which a layer's output errs least: the second search of AWQ."""

from __future__ import annotations

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, observers
from pytest_qreliab.quantizers.engine.grid import Bounds, RangeRule, Scheme
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.post_training import gptq, procedure
from pytest_qreliab.quantizers.request import Request

SHARES = [1 - k / 20 for k in range(10)]  # of the largest magnitude that is kept: 1 to 0.55, as the authors'
ROWS = 512  # the most input rows that a range is tried on, as the authors'
SCORES = ("q_proj", "k_proj", "q", "k", "qkv")  # last parts of the names of layers that attention scores come from


def clip_by_output(clip: Clip, layers: Layers, request: Request) -> None:
    """Round weights, in place, over the ranges by which the layers' outputs err least.

    Layers that attention scores come from keep the full range, as those of the authors do: of a product of two outputs
    the error of one says little.
    """
    clipped = {name: layer for name, layer in layers.items() if name.rpartition(".")[2] not in SCORES}
    inputs = observers.observe(clip, clipped, request, observers.SampleObserver)
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        rule = least_output_error(layer, inputs[name].all()) if name in inputs else grid.minmax
        weight.copy_(procedure.round_weight(weight, rule, request.weight_scheme(name)))


def least_output_error(layer: nn.Module, x: torch.Tensor) -> RangeRule:
    """Return the rule that clips the weights of each grid so that their part of the output errs least.

    Args:
        layer: The layer whose weight is to be rounded.
        x: A sample of its input.
    """
    read = gptq.unfold_rows(layer, x)  # (groups, rows, inputs of an output)
    some = torch.randperm(read.shape[1], generator=torch.Generator().manual_seed(0))[:ROWS]
    read = read[:, some.to(read.device)]
    like_weights = read.reshape(-1, *layer.get_parameter("weight").shape[1:])

    def rule(values: torch.Tensor, scheme: Scheme) -> Bounds:
        lowest, highest = grid.minmax(values, scheme)
        if scheme.number.scale == "none" or not read.isfinite().all():
            return lowest, highest
        # Each row of inputs is cut as an output's weights are: (groups, parts, rows, size)
        cells = grid.to_rows(like_weights, "channel" if scheme.granularity == "tensor" else scheme.granularity)
        size = cells.shape[1]
        parts = cells.view(*read.shape[:2], -1, size).transpose(1, 2)
        if parts.shape[2] > size:
            parts = torch.linalg.qr(parts, mode="r").R  # x = q r, so |x d| = |r d|
        of_all = scheme.scale_of_all(values)
        bound = torch.maximum(lowest.abs(), highest.abs())
        best, share = torch.full_like(bound, torch.inf), torch.ones_like(bound)
        for tried in SHARES:
            off = scheme.fit(*_clamp(lowest, highest, bound * tried), of_all).round(values) - values
            by_part = off.reshape(len(parts), -1, parts.shape[1], size).transpose(1, 2)
            errors = (parts @ by_part.mT).square().sum(2).transpose(1, 2)  # (groups, outputs of a group, parts)
            error = errors.reshape(len(values), -1).sum(1, keepdim=True)
            better = error < best
            best, share = torch.where(better, error, best), torch.where(better, tried, share)
        return _clamp(lowest, highest, bound * share)

    return rule


def _clamp(lowest: torch.Tensor, highest: torch.Tensor, bound: torch.Tensor) -> Bounds:
    return lowest.clamp(-bound, bound), highest.clamp(-bound, bound)
