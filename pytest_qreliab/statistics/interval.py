"""What every interval here is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from scipy.stats import norm


class Interval(NamedTuple):
    """Bounds on a difference, quantized minus baseline, each one-sided: either is exceeded with probability alpha.

    Read together they are a two-sided interval of confidence 1 - 2 alpha.
    """

    low: float
    high: float


def normal_interval(estimate: float, error: float, alpha: float) -> Interval:
    """The bounds of an estimate that is normal with that standard error."""
    half = float(norm.isf(alpha)) * error
    return Interval(estimate - half, estimate + half)


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
