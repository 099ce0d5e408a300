"""The difference of two paired proportions: exact McNemar test and Tango's score interval."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.interval import Bounds, Interval


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that gains and losses are equally likely; 1.0 without any discordant pair.

    `gained` counts the samples that only the quantized model gets right, `lost` those that only the baseline does.
    """
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def effective_counts(change: FloatArray, weights: FloatArray | None = None) -> tuple[float, float, float]:
    """Numbers gained, lost and all in all that give a weighted mean of changes its score interval.

    Changes, (n,), are -1, 0 or 1. With weights w, (n,), of mean 1, they are the weighted counts times sum(w) / sum(w^2)
    over the changed samples, so that (gained - lost) / n is the weighted mean and its variance that of the weighted
    mean (Kish's effective sample size); without changed samples, over all.
    """
    if weights is None:
        weights = np.ones_like(change)
    changed = change != 0
    of = weights[changed] if changed.any() else weights
    factor = float(of.sum() / (of**2).sum())
    gained, lost = (factor * float(weights[change == sign].sum()) for sign in (1, -1))
    return gained, lost, factor * float(weights.sum())


def wilson_interval(hits: int, n: int, alpha: float, shift: float = 0.0) -> Interval:
    """Wilson's score interval (1927) on the proportion hits / n, moved by `shift`."""
    z2 = float(norm.isf(alpha)) ** 2
    centre = (hits + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (hits * (n - hits) / n + z2 / 4)) / (n + z2)
    return Interval(centre - half + shift, centre + half + shift)


def score_interval(gained: float, lost: float, n: float, alpha: float) -> Interval:
    """Score interval on (gained - lost) / n, the change of accuracy over n paired samples (Tango 1998).

    The bounds are the differences that the score test rejects at exactly `alpha`, one-sided. It holds its level
    near 0 and 1 and without discordant pairs, where the Wald interval is empty.
    """
    z = float(norm.isf(alpha))

    def excess(delta: float, sign: float) -> float:
        return _score(gained, lost, n, delta) - sign * z

    estimate = (gained - lost) / n
    edge = 1 - 1e-12
    low = -1.0 if estimate <= -edge else float(brentq(excess, -edge, estimate, args=(1.0,), xtol=1e-12))
    high = 1.0 if estimate >= edge else float(brentq(excess, estimate, edge, args=(-1.0,), xtol=1e-12))
    return Interval(low, high)


def paired_score(change: FloatArray, weights: FloatArray | None = None) -> Bounds:
    """Tango's interval on the mean, or weighted mean, of changes in {-1, 0, 1}, (n,)."""
    gained, lost, n = effective_counts(change, weights)
    return partial(score_interval, gained, lost, n)


def _score(gained: float, lost: float, n: float, delta: float) -> float:
    """Tango's z statistic of the hypothesis that the true difference is `delta`."""
    # The maximum-likelihood share of lost pairs, given delta, is the root of a quadratic.
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    share_lost = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * share_lost + delta * (1 - delta))
    difference = gained - lost - n * delta
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)
