"""Controls: full-precision models that err by as much as a quantized one, but not by rounding.

`lowrank` takes the least singular values from every weight, `noise` adds Gaussian noise to it; each weight then
errs by as much as that of the named quantizer at the same bits. They tell "it was quantized" from "its spectrum was
filtered" and from "its weights were disturbed".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import rank
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers
from pytest_qreliab.quantizers.engine.layers import WeightPair
from pytest_qreliab.quantizers.request import Request

Kind = Literal["lowrank", "noise"]
KINDS: tuple[Kind, ...] = ("lowrank", "noise")


def lowrank(clip: Clip, request: Request) -> Clip:
    """Each weight without its least singular values; the last one to go is shrunk, so that the match is exact."""
    if request.parameters.by == "error":
        return Control(clip, _matched(clip, request), request.scope, "lowrank").at(1.0)
    control, pairs = _pairs(clip, _matched(clip, request), request.scope)
    with torch.no_grad():
        for pair in pairs:
            if _finite(pair):
                weight = pair.layer.get_parameter("weight")
                weight.copy_(_of_rank(pair.full, pair.quantized).reshape(weight.shape))
    return control


def noise(clip: Clip, request: Request) -> Clip:
    """Each weight with seeded Gaussian noise of the size of the matched quantizer's error."""
    return Control(clip, _matched(clip, request), request.scope, "noise", request.parameters.seed).at(1.0)


class Control:
    """A full-precision model each weight of which can be made to err as much as under a quantizer, or some times that.

    `lowrank` takes the least singular values away until the squared error is reached; the last one is shrunk. `noise`
    adds seeded Gaussian noise. What a weight needs is computed once for all strengths.
    """

    def __init__(self, full: Clip, quantized: Clip, scope: str, kind: Kind, seed: int = 0) -> None:
        self._clip, pairs = _pairs(full, quantized, scope)
        make = _filter if kind == "lowrank" else partial(_noise, seed)
        # NaN stays what it is, and shows.
        self._weights = [(p.layer.get_parameter("weight"), make(p)) for p in pairs if _finite(p)]

    @torch.no_grad()
    def at(self, strength: float) -> Clip:
        """The model with `strength` times the errors' root mean squares; the same object, changed, each time."""
        for weight, disturbed in self._weights:
            weight.copy_(disturbed(strength).reshape(weight.shape))
        return self._clip


def _matched(clip: Clip, request: Request) -> Clip:
    """The quantized model that a control takes its errors from."""
    assert request.matched is not None
    return request.matched(clip)


def _pairs(full: Clip, quantized: Clip, scope: str) -> tuple[Clip, list[WeightPair]]:
    try:
        return layers.weight_pairs(full, quantized, scope)
    except InputError as error:
        raise InputError(f"no control can match {quantized.name} as it is quantized here: {error}") from None


def _finite(pair: WeightPair) -> bool:
    return bool(pair.full.isfinite().all() and pair.quantized.isfinite().all())


def _noise(seed: int, pair: WeightPair) -> Callable[[float], torch.Tensor]:
    rng = torch.Generator().manual_seed(seed + zlib.crc32(pair.name.encode()))
    drawn = torch.randn(pair.full.shape, generator=rng).to(pair.full.device)
    before, error = pair.full.clone(), drawn * ((pair.quantized - pair.full).norm() / drawn.norm())

    def disturbed(strength: float) -> torch.Tensor:
        weight: torch.Tensor = before + strength * error
        return weight

    return disturbed


def _filter(pair: WeightPair) -> Callable[[float], torch.Tensor]:
    """The weight of lower rank with the squared error of the quantized one, or some times that."""
    u, values, vt = torch.linalg.svd(pair.full.double(), full_matrices=False)
    error = float((pair.quantized.double() - pair.full.double()).square().sum())
    u, vt = u.to(pair.full.dtype), vt.to(pair.full.dtype)  # half the memory, while it waits

    def disturbed(strength: float) -> torch.Tensor:
        return _composed(u.double(), _without(values, strength**2 * error), vt.double(), pair.full)

    return disturbed


def _without(singular_values: torch.Tensor, error: float) -> torch.Tensor:
    """The singular values without the least of them, whose squares add up to `error`."""
    squares = singular_values.square()
    behind = squares.flip(0).cumsum(0).flip(0) - squares  # of those after each
    kept: torch.Tensor = singular_values - (error - behind).clamp(min=0).sqrt().minimum(singular_values)
    return kept


def _of_rank(weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """The weight cut to the effective rank of the quantized one; left alone where that is no lower."""
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    wanted = effective_rank(torch.linalg.svdvals(quantized.double()))
    if wanted >= effective_rank(s):
        return weight
    place = torch.arange(len(s), dtype=s.dtype, device=s.device)

    def cut(kept: float) -> torch.Tensor:
        kept_values: torch.Tensor = s * (kept - place).clamp(0, 1)
        return kept_values

    few, many = 0.0, float(len(s))
    while many - few > 1e-9 * len(s):
        middle = (few + many) / 2
        few, many = (middle, many) if effective_rank(cut(middle)) < wanted else (few, middle)
    return _composed(u, cut(many), vt, weight)


def _composed(u: torch.Tensor, s: torch.Tensor, vt: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    weight: torch.Tensor = (u * s) @ vt
    return weight.to(like.dtype)


def effective_rank(singular_values: torch.Tensor) -> float:
    """That of `metrics.rank`, of singular values (r,), descending; 0 where all are 0."""
    power = singular_values.square().double().cpu().numpy()
    return rank.effective_rank(power) if power.any() else 0.0
