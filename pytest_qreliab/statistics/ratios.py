"""The ratio of two paired proportions: a score interval, which has a width even where no sample differs."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm

from pytest_qreliab.statistics.interval import Interval


def relative_drop_interval(both: int, gained: int, lost: int, alpha: float) -> Interval:
    """Score interval on 1 - A(quantized) / A(baseline), the study's d(D); positive is worse.

    `both` counts the samples that both models get right, `gained` those that only the quantized one does, `lost`
    those that only the baseline does; samples that neither does say nothing of the ratio. The bounds are the drops
    that the score test (Nam & Blackwelder 2002) rejects at exactly `alpha`, one-sided: to relative drops what Tango's
    interval is to differences. (NaN, NaN) where the baseline's accuracy is 0. Raises ValueError for negative counts
    or alpha outside (0, 0.5).
    """
    if min(both, gained, lost) < 0 or not 0 < alpha < 0.5:
        raise ValueError(f"{both} both, {gained} gained, {lost} lost, alpha {alpha}")
    baseline, quantized = both + lost, both + gained
    if baseline == 0:
        return Interval(math.nan, math.nan)
    if quantized == 0:
        return Interval(1 - _bound(0, gained, lost, math.log(1e-9), -1.0, alpha), 1.0)
    estimate = math.log(quantized / baseline)
    highest, lowest = (_bound(both, gained, lost, estimate, sign, alpha) for sign in (-1.0, 1.0))
    return Interval(1 - highest, 1 - lowest)


def _bound(both: int, gained: int, lost: int, start: float, sign: float, alpha: float) -> float:
    """The ratio, below exp(start) for sign 1, above for -1, whose statistic is sign * z."""
    wanted = sign * float(norm.isf(alpha))

    def excess(log_ratio: float) -> float:
        return _score(both, gained, lost, math.exp(log_ratio)) - wanted

    end, step = start, 1.0
    while sign * excess(end) < 0:  # the statistic has no bounds
        end, step = end - sign * step, 2 * step
    return math.exp(float(brentq(excess, start, end, xtol=1e-13)))


def _score(both: int, gained: int, lost: int, ratio: float) -> float:
    """Nam and Blackwelder's z statistic of the hypothesis that A(quantized) / A(baseline) is `ratio`."""
    baseline, quantized = both + lost, both + gained
    # The maximum-likelihood number gained, given the ratio, is the root of a quadratic.
    root = math.hypot(quantized - ratio**2 * baseline, 2 * ratio * math.sqrt(gained * lost))
    fitted_gained = (ratio**2 * (baseline + 2 * gained) - quantized + root) / (2 * ratio * (ratio + 1))
    fitted_lost = ratio * fitted_gained - (ratio - 1) * (both + gained + lost)
    variance = ratio * (fitted_gained + fitted_lost)
    difference = quantized - ratio * baseline
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)
