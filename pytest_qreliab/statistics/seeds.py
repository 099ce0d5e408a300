"""Differences measured with several seeds on the same samples: a two-way random-effects analysis of variance.

    difference[i, j] = mean + seed[i] + sample[j] + rest[i, j],    i < seeds, j < n

The mean holds for other seeds and other samples, so both kinds of chance count. With the usual mean squares, its
variance is (MS_seed + MS_sample - MS_rest) / (seeds * n), without bias (Searle, Casella & McCulloch 1992). The first
term has seeds - 1 degrees of freedom and the rest, what the samples add, n - 1; each part gets the t quantile of its
own (Howe 1974; Burdick & Graybill 1992). One quantile at Satterthwaite's degrees of freedom would be wrong where
few seeds look alike by luck: with two seeds and alpha = .05 / 18 it errs in 12 times as many runs as it should.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import t

from pytest_qreliab.statistics.arrays import finite
from pytest_qreliab.statistics.interval import Interval

SMALLEST_P = 1e-100


class _Parts(NamedTuple):
    mean: float
    of_seeds: float
    of_samples: float
    seeds: int
    n: int

    def half(self, alpha: float) -> float:
        """Half the width of the interval; exact for seeds alone or samples alone, conservative between."""
        by_seeds = float(t.isf(alpha, self.seeds - 1)) * math.sqrt(self.of_seeds)
        by_samples = float(t.isf(alpha, self.n - 1)) * math.sqrt(self.of_samples)
        return math.hypot(by_seeds, by_samples)


def interval(differences: npt.ArrayLike, alpha: float) -> Interval:
    """Interval on the mean of `differences`, (seeds, n), both >= 2, over seeds and samples alike.

    With two seeds it is wide, and rightly so: t has one degree of freedom. Raises ValueError for another shape, NaN,
    infinity, or alpha outside (0, 0.5].
    """
    if not 0 < alpha <= 0.5:
        raise ValueError(f"alpha is {alpha}")
    parts = _analyse(differences)
    half = parts.half(alpha)
    return Interval(parts.mean - half, parts.mean + half)


def regression_test(differences: npt.ArrayLike, limit: float = 0.0) -> float:
    """One-sided p-value of the hypothesis that the mean harm, over seeds and samples, is at most `limit`.

    `differences`, (seeds, n), both >= 2, are turned so that positive is worse. Small means a regression: below
    alpha exactly where the lower bound of `interval` is above the limit. Raises ValueError for another shape, NaN
    or infinity, also of the limit.
    """
    if not np.isfinite(limit):
        raise ValueError(f"the limit is {limit}")
    parts = _analyse(differences)
    excess = parts.mean - limit
    # The half width falls to 0 as the tail grows to .5.
    if abs(excess) <= parts.half(0.5):
        return 0.5 if parts.half(0.25) else 1.0
    if abs(excess) >= parts.half(SMALLEST_P):
        tail = 0.0
    else:
        tail = math.exp(
            brentq(lambda log: parts.half(math.exp(log)) - abs(excess), math.log(SMALLEST_P), math.log(0.5), xtol=1e-12)
        )
    return tail if excess > 0 else 1 - tail


def _analyse(differences: npt.ArrayLike) -> _Parts:
    x = finite(differences, "differences", 2, 2)
    seeds, n = x.shape
    grand = x.mean()
    of_seed, of_sample = x.mean(axis=1), x.mean(axis=0)
    rest = x - of_seed[:, None] - of_sample + grand
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (n - 1))
    ms_sample = seeds * float(of_sample.var(ddof=1))
    # Unbiased it may be negative; no sample can take variance away.
    surplus = max(ms_sample - ms_rest, 0.0)
    return _Parts(float(grand), float(of_seed.var(ddof=1)) / seeds, surplus / (seeds * n), seeds, n)
