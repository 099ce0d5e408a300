"""Controls: full-precision models that err by as much as a quantized one, but not by rounding.

`lowrank` takes the least singular values from every weight, `noise` adds Gaussian noise to it; each weight then
errs by as much as that of the named quantizer at the same bits. They tell "it was quantized" from "its spectrum was
filtered" and from "its weights were disturbed".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers import fake
from pytest_qreliab.quantizers.request import Request

# From the name, the weight as (out, n), and the quantized weight likewise, to the control's.
Disturb = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]


def lowrank(clip: Clip, request: Request) -> Clip:
    """Each weight without its least singular values; the last one to go is shrunk, so that the match is exact."""
    by_error = request.parameters.by == "error"
    return _disturbed(clip, request, lambda name, w, q: (_of_error if by_error else _of_rank)(w, q))


def noise(clip: Clip, request: Request) -> Clip:
    """Each weight with seeded Gaussian noise of the size of the matched quantizer's error."""

    def disturb(name: str, weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        rng = torch.Generator().manual_seed(request.parameters.seed + zlib.crc32(name.encode()))
        drawn = torch.randn(weight.shape, generator=rng).to(weight.device)
        disturbed: torch.Tensor = weight + drawn * ((quantized - weight).norm() / drawn.norm())
        return disturbed

    return _disturbed(clip, request, disturb)


@torch.no_grad()
def _disturbed(clip: Clip, request: Request, disturb: Disturb) -> Clip:
    recipe = request.matched
    assert recipe is not None
    matched = recipe.apply()(clip, replace(request, parameters=recipe.parameters, matched=recipe.matched))
    there = dict(matched.module.named_modules())
    clip, layers = fake.prepare(clip, request.scope)
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        like = there.get(name)
        if not isinstance(like, torch.nn.Linear | torch.nn.Conv2d) or like.weight.shape != weight.shape:
            raise InputError(f"the control cannot match {recipe.name!r}: its layer {name} has no dense weight")
        quantized = fake.effective_weight(like).flatten(1)
        rows = weight.flatten(1)
        if bool(rows.isfinite().all() and quantized.isfinite().all()):  # NaN stays what it is, and shows
            weight.copy_(disturb(name, rows, quantized).reshape(weight.shape))
    return clip


def _of_error(weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """The weight of lower rank with the squared error of the quantized one."""
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    left = float((quantized.double() - weight.double()).square().sum())
    for k in range(len(s) - 1, -1, -1):
        if left <= float(s[k].square()):
            s[k] -= left**0.5
            break
        left -= float(s[k].square())
        s[k] = 0
    return _composed(u, s, vt, weight)


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
    """exp(-sum p log p), p = s^2 / sum s^2, of singular values (r,): from 1 to r; 0 where all are 0."""
    power = singular_values.square()
    total = power.sum()
    if not total > 0:
        return 0.0
    p = power[power > 0] / total
    return float(torch.exp(-(p * p.log()).sum()))
