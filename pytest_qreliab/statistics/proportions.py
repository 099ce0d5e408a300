"""Paired proportions: McNemar's exact test, and score intervals on their difference."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.interval import Bounds, Interval


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    The null hypothesis is that gains and losses are equally likely.

    Args:
        gained: The number of samples that only the quantized model classifies correctly.
        lost: The number of samples that only the baseline classifies correctly.

    Returns:
        The p-value, 1.0 if there is neither a gain nor a loss.

    Example:
        >>> round(mcnemar(1, 5), 5)
        0.21875
    """
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


class EffectiveCounts(NamedTuple):
    """Numbers of paired samples, not always whole."""

    gained: float
    lost: float
    total: float


def effective_counts(change: FloatArray, weights: FloatArray | None = None) -> EffectiveCounts:
    """Count gains and losses for the score interval of a weighted mean.

    The counts are the weighted counts times sum(w) / sum(w^2) over the changed samples, or over all samples if none
    has changed. So (gained - lost) / total is the weighted mean, and its variance is that of the weighted mean (Kish's
    effective sample size).

    Args:
        change: The changes of correctness, -1.0, 0.0 or 1.0, shape (n,).
        weights: Weights w of mean 1, shape (n,). None stands for equal weights, which leave plain counts.

    Example:
        >>> import numpy as np
        >>> effective_counts(np.array([1.0, 0.0, -1.0, 0.0]))
        EffectiveCounts(gained=1.0, lost=1.0, total=4.0)
    """
    if weights is None:
        weights = np.ones_like(change)
    changed = change != 0
    counted = weights[changed] if changed.any() else weights
    factor = float(counted.sum() / (counted**2).sum())
    gained, lost = (factor * float(weights[change == sign].sum()) for sign in (1, -1))
    return EffectiveCounts(gained, lost, factor * float(weights.sum()))


def wilson_interval(hits: int, n: int, alpha: float, shift: float = 0.0) -> Interval:
    """Return Wilson's score interval (1927) on the proportion hits / n.

    Args:
        hits: The number of hits, from 0 to n.
        n: The number of samples, at least 1.
        alpha: The error probability of each bound, in (0, 1).
        shift: A constant to add to both bounds.

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(8, 10, 0.025)]
        [0.49, 0.943]
    """
    z2 = float(norm.isf(alpha)) ** 2
    centre = (hits + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (hits * (n - hits) / n + z2 / 4)) / (n + z2)
    return Interval(centre - half + shift, centre + half + shift)


def score_interval(gained: float, lost: float, n: float, alpha: float) -> Interval:
    """Return the score interval on a change of accuracy (Tango 1998).

    The bounds are the differences that the score test rejects at exactly alpha, one-sided. The interval holds its level
    near 0 and 1. It has a width without any gain or loss, but the Wald interval has none.

    Args:
        gained: The number of samples that only the quantized model classifies correctly.
        lost: The number of samples that only the baseline classifies correctly.
        n: The number of samples. None of the three counts needs to be whole, see `effective_counts`.
        alpha: The error probability of each bound, in (0, 1).

    Returns:
        Bounds on (gained - lost) / n, in [-1, 1].

    Example:
        >>> [round(bound, 3) for bound in score_interval(2, 12, 50, 0.025)]
        [-0.345, -0.061]
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
    """Return Tango's interval on the mean change, as a function of alpha.

    Args:
        change: The changes of correctness, -1.0, 0.0 or 1.0, shape (n,).
        weights: Weights of mean 1, shape (n,). None stands for equal weights.

    Example:
        >>> import numpy as np
        >>> bounds = paired_score(np.array([-1.0, -1.0, 0.0, 1.0]))
        >>> [round(bound, 3) for bound in bounds(0.05)]
        [-0.731, 0.414]
    """
    return partial(score_interval, *effective_counts(change, weights))


def _score(gained: float, lost: float, n: float, delta: float) -> float:
    """Return Tango's z statistic for a true difference of `delta`."""
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
