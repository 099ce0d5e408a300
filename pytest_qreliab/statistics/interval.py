"""What every interval here is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

LEAST_SKEWNESS = 1e-6  # below it rounding would be larger than what it does
STEEPEST = 0.8


class Interval(NamedTuple):
    """Bounds on a difference, quantized minus baseline, each one-sided: either is exceeded with probability alpha.

    Read together they are a two-sided interval of confidence 1 - 2 alpha.
    """

    low: float
    high: float


Bounds = Callable[[float], Interval]  # the interval at a one-sided error probability


def skewed_interval(estimate: float, error: float, skewness: float, quantile: float) -> Interval:
    """The bounds of an estimate with that standard error and skewness; `quantile` is that of the unskewed one.

    By Hall's transformation (1992) of Student's ratio t: t + s t^2 / 3 + s^2 t^3 / 27 + s / 6 is nearly normal.
    Where a few samples make all the difference the bounds are nearly those of a Poisson count of them. Skewness counts
    up to .8 / quantile: beyond, the transformation turns steeper than a third moment can know of.
    """
    most = STEEPEST / max(abs(quantile), 1.0)
    skewness = min(max(skewness, -most), most)

    def reach(quantile: float) -> float:
        if abs(skewness) < LEAST_SKEWNESS:
            return quantile
        return 3 / skewness * (float(np.cbrt(1 + skewness * (quantile - skewness / 6))) - 1)

    return Interval(estimate - error * reach(quantile), estimate - error * reach(-quantile))


def normal_interval(estimate: float, error: float, alpha: float) -> Interval:
    """The bounds of an estimate that is normal with that standard error."""
    return skewed_interval(estimate, error, 0.0, float(norm.isf(alpha)))


def widened(bounds: Callable[[float], Interval], n: int) -> Callable[[float], Interval]:
    """The bounds of a metric in [0, 1] whose n samples show no variation at all, made honest.

    That no sample makes a difference does not mean that none ever would: a share of -ln(alpha) / n of the population
    might, by the "rule of three" (Hanley & Lippman-Hand 1983). Intervals that have a width are left as they are.
    """

    def bounded(alpha: float) -> Interval:
        low, high = bounds(alpha)
        if low != high:
            return Interval(low, high)
        return Interval(low + math.log(alpha) / n, high - math.log(alpha) / n)

    return bounded
