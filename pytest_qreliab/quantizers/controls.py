"""Controls: full-precision models that err as much as a quantized one.

They do not err by rounding. `lowrank` takes the least singular values from every weight, `noise` adds Gaussian noise to
it. Each weight then errs by as much as under the named quantizer at the same bits. Controls tell "it was quantized"
from "its spectrum was filtered" and from "its weights were disturbed".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

import torch

from pytest_qreliab.config.cases import ControlKind
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import rank
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers
from pytest_qreliab.quantizers.engine.layers import WeightPair
from pytest_qreliab.quantizers.request import Request


def lowrank(clip: Clip, request: Request) -> Clip:
    """Return a copy whose weights have lost their least singular values.

    The last one to go is only shrunk, so that the match is exact.

    Args:
        clip: The full-precision model.
        request: What is asked for, with the quantized model to match.

    Raises:
        InputError: The matched model has no dense weights.
    """
    if request.parameters.by == "error":
        return Control(clip, _matched(clip, request), request.scope, kind="lowrank").at(1.0)
    control, pairs = _weight_pairs(clip, _matched(clip, request), request.scope)
    with torch.no_grad():
        for pair in pairs:
            if _finite(pair):
                weight = pair.layer.get_parameter("weight")
                weight.copy_(_cut_to_rank(pair.full, pair.quantized).reshape(weight.shape))
    return control


def noise(clip: Clip, request: Request) -> Clip:
    """Return a copy whose weights have seeded Gaussian noise.

    The noise has the size of the matched quantizer's error.

    Args:
        clip: The full-precision model.
        request: What is asked for, with the quantized model to match.

    Raises:
        InputError: The matched model has no dense weights.
    """
    seed = request.parameters.seed
    return Control(clip, _matched(clip, request), request.scope, kind="noise", seed=seed).at(1.0)


class Control:
    """A full-precision model whose weights err by a chosen amount.

    Each weight errs as much as under a quantizer, times a strength. `lowrank` takes the least singular values away
    until the squared error is reached, and shrinks the last one. `noise` adds seeded Gaussian noise. What a weight
    needs is computed once for all strengths.
    """

    def __init__(self, full: Clip, quantized: Clip, scope: str, *, kind: ControlKind, seed: int = 0) -> None:
        self._clip, pairs = _weight_pairs(full, quantized, scope)
        make = _filter if kind == "lowrank" else partial(_noise, seed)
        # NaN stays what it is, and shows.
        self._weights = [(p.layer.get_parameter("weight"), make(p)) for p in pairs if _finite(p)]

    @torch.no_grad()
    def at(self, strength: float) -> Clip:
        """Return the model with errors of a strength.

        It is one object, which every call changes.

        Args:
            strength: The factor of the errors' root mean squares; 1 is the quantizer's own error.
        """
        for weight, disturbed in self._weights:
            weight.copy_(disturbed(strength).reshape(weight.shape))
        return self._clip


def _matched(clip: Clip, request: Request) -> Clip:
    """Return the quantized model that a control takes its errors from."""
    if request.matched is None:
        raise ValueError("a control needs a quantized model to match")
    return request.matched(clip)


def _weight_pairs(full: Clip, quantized: Clip, scope: str) -> tuple[Clip, list[WeightPair]]:
    try:
        return layers.weight_pairs(full, quantized, scope)
    except InputError as error:
        raise InputError(f"no control can match {quantized.name} as it is quantized here: {error}") from None


def _finite(pair: WeightPair) -> bool:
    return bool(pair.full.isfinite().all() and pair.quantized.isfinite().all())


def _noise(seed: int, pair: WeightPair) -> Callable[[float], torch.Tensor]:
    rng = torch.Generator().manual_seed(seed + zlib.crc32(pair.name.encode()))
    sample = torch.randn(pair.full.shape, generator=rng).to(pair.full.device)
    before, error = pair.full.clone(), sample * ((pair.quantized - pair.full).norm() / sample.norm())

    def disturbed(strength: float) -> torch.Tensor:
        weight: torch.Tensor = before + strength * error
        return weight

    return disturbed


def _filter(pair: WeightPair) -> Callable[[float], torch.Tensor]:
    """Return the function from a strength to the filtered weight."""
    u, values, vt = torch.linalg.svd(pair.full.double(), full_matrices=False)
    error = float((pair.quantized.double() - pair.full.double()).square().sum())
    u, vt = u.to(pair.full.dtype), vt.to(pair.full.dtype)  # half the memory, while it waits

    def disturbed(strength: float) -> torch.Tensor:
        return _compose(u.double(), _without_least(values, strength**2 * error), vt.double(), pair.full)

    return disturbed


def _without_least(singular_values: torch.Tensor, error: float) -> torch.Tensor:
    """Subtract from the least singular values squares that sum to `error`."""
    squares = singular_values.square()
    behind = squares.flip(0).cumsum(0).flip(0) - squares  # the sum of those after each
    kept: torch.Tensor = singular_values - (error - behind).clamp(min=0).sqrt().minimum(singular_values)
    return kept


def _cut_to_rank(weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return the weight cut to the quantized one's effective rank, if lower."""
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
    return _compose(u, cut(many), vt, weight)


def _compose(u: torch.Tensor, s: torch.Tensor, vt: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    weight: torch.Tensor = (u * s) @ vt
    return weight.to(like.dtype)


def effective_rank(singular_values: torch.Tensor) -> float:
    """Return the effective rank of a matrix, as `metrics.rank` defines it.

    Args:
        singular_values: Its singular values, descending, shape (r,).

    Returns:
        A number from 1 to r; 0 if all singular values are 0.
    """
    power = singular_values.square().double().cpu().numpy()
    return rank.effective_rank(power) if power.any() else 0.0
