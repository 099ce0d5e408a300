"""The standard error of a paired difference that no formula fits, from random halves and quarters of the samples.

Cut the samples into two halves at random: the two values of the statistic on them are independent, so that half their
squared difference estimates the variance at half the sample size without bias, however unsmooth the statistic is. The
percentile bootstrap does not: it adds a second helping of noise to gaps that noise has already widened, and on the ECE
of calibrated models its "95 %" intervals held what they should in all of 200 simulations (see
benchmarks/studies/intervals.py).

What is left is to go from n / 2 to n. The variance of a mean halves. Where quarters show that it falls more slowly, as
when a change is only just clear of the noise, or faster, as that of squared gaps does that are nothing but noise, the
same factor again is allowed for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pytest_qreliab.statistics.arrays import FloatArray

HalfMasks = npt.NDArray[np.floating]
BlockIds = npt.NDArray[np.integer]

SEED = 0
CUTS = 200  # each into four quarters and, three times, two halves: 2000 subsets
FASTEST = 0.5  # as a variance falls that goes with the inverse square of the sample size
FEWEST = 8  # samples of which a quarter can be had
MASK_ELEMENTS = 1_000_000
MOST_BUNDLES = 4096


class SumTable(Protocol):
    """Sums over samples, and the metrics that are functions of them."""

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        """The sums over all samples, (sums, 1), or over the subsets that the columns of masks are: (sums, r).

        Masks, (bundles, r), hold 0 and 1. The sums of two disjoint subsets add up to those of their union.
        """
        ...

    def values(self, sums: FloatArray) -> dict[str, FloatArray]:
        """The metrics by name, each (r,), from sums (sums, r)."""
        ...


def assign_blocks(n: int) -> BlockIds:
    """In which of at most 4096 bundles each of n samples goes, (n,): at random, and of one size but for one sample.

    Bundles are cut into halves in place of samples, so that 50,000 cost no more than 4096. A random half of random
    bundles is a random half of the samples.
    """
    members = np.arange(n) % min(n, MOST_BUNDLES)
    return members if n <= MOST_BUNDLES else np.random.default_rng(SEED).permutation(members)


def half_sample_errors(pairs: Sequence[tuple[SumTable, SumTable]], n: int) -> dict[str, float]:
    """The standard error of quantized - baseline for each metric of pairs of tables of the same n bundles.

    What it measures the spread of is the difference that n samples show, about its mean over sets of n samples.
    Infinite for fewer than 8 bundles. Seeded: equal input gives equal results.
    """
    if n < FEWEST:
        return {name: float("inf") for table, _ in pairs for name in table.values(table.sums())}
    squares: dict[str, list[tuple[float, float]]] = {}
    rng = np.random.default_rng(SEED)
    at_once = max(1, MASK_ELEMENTS // (3 * n))
    for start in range(0, CUTS, at_once):
        cuts = min(at_once, CUTS - start)
        quarter = rng.permuted(np.tile(np.arange(n, dtype=np.uint8) % 4, (cuts, 1)), axis=1)
        masks = np.concatenate([(quarter == q).T for q in range(3)], axis=1).astype(np.float32)
        for b, q in pairs:
            before, after = _values(b, masks), _values(q, masks)
            for name in before:
                squares.setdefault(name, []).append(_squares(after[name] - before[name]))
    errors = {}
    for name, found in squares.items():
        of_halves, of_quarters = np.sum(found, axis=0) / CUTS
        slower = max(of_halves / of_quarters, FASTEST) if of_quarters > 0 else 1.0
        errors[name] = float(np.sqrt(of_halves * slower))
    return errors


def _values(table: SumTable, masks: npt.NDArray[np.float32]) -> dict[str, FloatArray]:
    """The table's metrics on the four quarters of each cut, then on the halves: (10, cuts) each."""
    a, b, c = np.split(table.sums(masks), 3, axis=1)
    d = table.sums().astype(masks.dtype) - a - b - c
    parts = [a, b, c, d, a + b, c + d, a + c, b + d, a + d, b + c]
    values = [table.values(part) for part in parts]
    return {name: np.stack([of[name] for of in values]) for name in values[0]}


def _squares(values: FloatArray) -> tuple[float, float]:
    """Summed over cuts: the variance at n that halves suggest, and the one that quarters do."""
    halves = values[4::2] - values[5::2]
    return float((halves**2).mean(axis=0).sum() / 4), float(values[:4].var(axis=0, ddof=1).sum() / 4)
