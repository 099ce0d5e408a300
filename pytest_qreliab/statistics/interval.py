"""Intervals on differences, from an estimate and its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

LEAST_SKEWNESS = 1e-6  # below it the correction is smaller than its rounding error
STEEPEST = 0.8


class Interval(NamedTuple):
    """Bounds on a difference, quantized minus baseline.

    Each bound is one-sided and is exceeded with probability alpha. The two together are a two-sided interval of
    confidence 1 - 2 alpha.
    """

    low: float
    high: float


Bounds = Callable[[float], Interval]  # the interval at a one-sided error probability alpha


def skewed_interval(estimate: float, error: float, skewness: float, quantile: float) -> Interval:
    """Return the bounds of an estimate whose distribution is skewed.

    By Hall's transformation (1992) of Student's ratio t, t + s t^2 / 3 + s^2 t^3 / 27 + s / 6 is nearly normal. If a
    few samples make all the difference, the bounds are nearly those of a Poisson count of them.

    Args:
        estimate: The estimate.
        error: Its standard error.
        skewness: Its skewness s. It counts up to 0.8 / quantile: beyond, the transformation turns steeper than a
            third moment can justify.
        quantile: The quantile that the bounds have without skewness, of Student's or the normal distribution.

    Example:
        >>> skewed_interval(1.0, 0.5, 0.0, 2.0)
        Interval(low=0.0, high=2.0)
        >>> [round(bound, 2) for bound in skewed_interval(1.0, 0.5, 0.3, 2.0)]
        [0.17, 2.36]
    """
    most = STEEPEST / max(abs(quantile), 1.0)
    skewness = min(max(skewness, -most), most)

    def reach(quantile: float) -> float:
        if abs(skewness) < LEAST_SKEWNESS:
            return quantile
        return 3 / skewness * (float(np.cbrt(1 + skewness * (quantile - skewness / 6))) - 1)

    return Interval(estimate - error * reach(quantile), estimate - error * reach(-quantile))


def normal_interval(estimate: float, error: float, alpha: float) -> Interval:
    """Return the bounds of a normally distributed estimate.

    Args:
        estimate: The estimate.
        error: Its standard error.
        alpha: The error probability of each bound, in (0, 1).

    Example:
        >>> [round(bound, 3) for bound in normal_interval(0.0, 1.0, 0.05)]
        [-1.645, 1.645]
    """
    return skewed_interval(estimate, error, 0.0, float(norm.isf(alpha)))


def widen_if_empty(bounds: Bounds, n: int) -> Bounds:
    """Widen the interval of a metric whose samples do not vary.

    No sample makes a difference, but a share of -ln(alpha) / n of the population might: the "rule of three" (Hanley &
    Lippman-Hand 1983). Intervals that have a width stay as they are.

    Args:
        bounds: The interval of a change of a metric in [0, 1].
        n: The number of samples.

    Returns:
        The interval, -ln(alpha) / n wider on either side if it had no width.

    Example:
        >>> low, high = widen_if_empty(lambda alpha: Interval(0.0, 0.0), 100)(0.05)
        >>> round(low, 3), round(high, 3)
        (-0.03, 0.03)
    """

    def widened(alpha: float) -> Interval:
        low, high = bounds(alpha)
        if low != high:
            return Interval(low, high)
        return Interval(low + math.log(alpha) / n, high - math.log(alpha) / n)

    return widened
