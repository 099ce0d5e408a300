"""`minmax`, `percentile` and `mse`: rounding over different ranges."""

from __future__ import annotations

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import RangeRule
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request


def minmax(clip: Clip, request: Request) -> Clip:
    """Return a copy rounded over the full range, without clipping."""
    return _quantize(clip, request, grid.minmax)


def percentile(clip: Clip, request: Request) -> Clip:
    """Return a copy rounded over a share of the magnitudes.

    The outliers beyond are clipped.
    """
    return _quantize(clip, request, grid.percentile(request.parameters.share))


def mse(clip: Clip, request: Request) -> Clip:
    """Return a copy rounded over ranges of the least squared error.

    The method is OMSE (Choukroun et al. 2019).
    """
    return _quantize(clip, request, grid.mse)


def _quantize(clip: Clip, request: Request, rule: RangeRule) -> Clip:
    rounder, inputs = procedure.nearest(rule), procedure.from_range(rule)
    return procedure.quantize(clip, request, rounder=rounder, input_rounder=inputs)
