"""The paired bootstrap, by counts: each replicate says how often each sample occurs, for both models alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pytest_qreliab.statistics.interval import Interval

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SEED = 0
MIN_REPLICATES = 2000
TAIL_REPLICATES = 20
CHUNK_ELEMENTS = 4_000_000


def replicates(alpha: float) -> int:
    """Enough replicates that at least 20 lie beyond each bound, and never fewer than 2000."""
    return max(MIN_REPLICATES, math.ceil(TAIL_REPLICATES / alpha))


def interval(difference: Callable[..., Floats], sizes: Sequence[int], alpha: float) -> Interval:
    """Percentile interval on a difference of two models.

    `difference` takes one count array (replicates, size) for each of `sizes`, the independent groups of
    samples, and returns one value per replicate. Seeded: equal input gives equal bounds, whatever ran before.
    """
    values = np.concatenate([difference(*counts) for counts in _draws(sizes, replicates(alpha))])
    low, high = np.quantile(values, [alpha, 1 - alpha])
    return Interval(float(low), float(high))


def _draws(sizes: Sequence[int], total: int) -> Iterator[list[Counts]]:
    rng = np.random.default_rng(SEED)
    chunk = max(1, CHUNK_ELEMENTS // sum(sizes))
    for start in range(0, total, chunk):
        rows = min(chunk, total - start)
        yield [rng.multinomial(size, np.full(size, 1 / size), size=rows) for size in sizes]
