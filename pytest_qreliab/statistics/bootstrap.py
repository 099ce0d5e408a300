"""The paired bootstrap, by counts: each replicate says how often each sample occurs, for both models alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from pytest_qreliab.statistics.interval import Interval

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SEED = 0
REPLICATES = 2000
# The smallest tail that the replicates show: 20 of 2000 lie beyond it.
SHOWN_TAIL = 0.01
CHUNK_ELEMENTS = 4_000_000


def interval(difference: Callable[..., Floats], sizes: Sequence[int], alpha: float) -> Interval:
    """Percentile interval on a difference of two models, from 2000 replicates.

    `difference` takes one count array (replicates, size) for each of `sizes`, the independent groups of
    samples, and returns one value per replicate. A bound at `alpha` below 0.01, as a correction for many gates
    asks for, is the percentile at 0.01 stretched from the median by the ratio of the normal quantiles: the
    replicates to show it would cost more than the forward passes. Seeded: equal input gives equal bounds.
    """
    values = np.concatenate([difference(*counts) for counts in _draws(sizes)])
    tail = max(alpha, SHOWN_TAIL)
    low, median, high = np.quantile(values, [tail, 0.5, 1 - tail])
    stretch = norm.isf(alpha) / norm.isf(tail)
    return Interval(float(median - (median - low) * stretch), float(median + (high - median) * stretch))


def _draws(sizes: Sequence[int]) -> Iterator[list[Counts]]:
    rng = np.random.default_rng(SEED)
    chunk = max(1, CHUNK_ELEMENTS // sum(sizes))
    for start in range(0, REPLICATES, chunk):
        rows = min(chunk, REPLICATES - start)
        yield [rng.multinomial(size, np.full(size, 1 / size), size=rows) for size in sizes]
