"""Standard errors of paired differences, from random halves and quarters of the samples.

They are for statistics that no formula fits.

Cut the samples into two halves at random. The values of the statistic on the two halves are independent, so half their
squared difference estimates the variance at half the sample size without bias, however unsmooth the statistic is. The
percentile bootstrap does not: it adds a second helping of noise to gaps that noise has already widened. On the ECE of
calibrated models, its "95 %" intervals held the expected value in all of 200 simulations (see
benchmarks/studies/intervals.py).

The variance at n / 2 must still be brought to n. The variance of a mean halves. Quarters show if it falls more slowly,
which happens if a change is only just clear of the noise, or faster, which happens for squared gaps that are nothing
but noise. The factor between quarters and halves is then applied once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pytest_qreliab.statistics.arrays import FloatArray

HalfMasks = npt.NDArray[np.floating]  # (blocks, subsets), 1 if a block belongs to a subset, else 0
BlockIds = npt.NDArray[np.integer]  # (n,), the block of each sample, counted from 0

SEED = 0
CUTS = 200  # each into four quarters and, three times, two halves: 2000 subsets
LEAST_RATIO = 0.5  # of the variances from halves and from quarters, if a variance falls with the square of n
MIN_BLOCKS = 8  # fewer cannot be cut into quarters
MASK_ELEMENTS = 1_000_000
MAX_BLOCKS = 4096


class SumTable(Protocol):
    """A table of sums over samples, and the metrics computed from them."""

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        """Return the sums over subsets of the blocks, or over all samples.

        The sums of two disjoint subsets must add up to those of their union.

        Args:
            masks: The subsets, shape (blocks, subsets). None stands for the whole set, as one subset.

        Returns:
            The sums, shape (sums, subsets).
        """
        ...

    def metrics_from_sums(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Return the metrics of each subset.

        Args:
            sums: The sums, shape (sums, subsets).

        Returns:
            The values of each metric by name, shape (subsets,).
        """
        ...


def assign_blocks(n: int) -> BlockIds:
    """Assign samples at random to at most 4096 blocks.

    Blocks are cut into halves in place of samples, so that 50,000 samples cost no more than 4096. A random half of
    random blocks is a random half of the samples.

    Args:
        n: The number of samples.

    Returns:
        The block of each sample, shape (n,). Sizes of blocks differ by at most one sample. Each of up to 4096 samples
        has a block of its own.

    Example:
        >>> assign_blocks(4)
        array([0, 1, 2, 3])
        >>> int(assign_blocks(50_000).max())
        4095
    """
    members = np.arange(n) % min(n, MAX_BLOCKS)
    return members if n <= MAX_BLOCKS else np.random.default_rng(SEED).permutation(members)


def half_sample_errors(pairs: Sequence[tuple[SumTable, SumTable]], blocks: int) -> dict[str, float]:
    """Estimate the standard errors of quantized minus baseline metrics.

    A standard error is the spread of the difference about its mean over sets of as many samples. The module describes
    the method. Equal input gives equal results, because the random numbers are seeded.

    Args:
        pairs: Tables of the baseline and of the quantized model, over the same samples in the same blocks.
        blocks: The number of blocks.

    Returns:
        The standard error of each metric by name. It is infinite for fewer than 8 blocks.

    Example:
        >>> import numpy as np
        >>> class Mean:
        ...     def __init__(self, values):
        ...         self.rows = np.stack([values, np.ones_like(values)])
        ...     def sums(self, masks=None):
        ...         return self.rows @ (np.ones((self.rows.shape[1], 1)) if masks is None else masks)
        ...     def metrics_from_sums(self, sums):
        ...         return {"mean": sums[0] / sums[1]}
        >>> change = np.random.default_rng(0).normal(size=400)
        >>> error = half_sample_errors([(Mean(np.zeros(400)), Mean(change))], 400)["mean"]
        >>> round(error * 400**0.5 / float(change.std()), 1)
        1.0
    """
    if blocks < MIN_BLOCKS:
        return {name: float("inf") for table, _ in pairs for name in table.metrics_from_sums(table.sums())}
    squares: dict[str, list[tuple[float, float]]] = {}
    rng = np.random.default_rng(SEED)
    at_once = max(1, MASK_ELEMENTS // (3 * blocks))
    for start in range(0, CUTS, at_once):
        cuts = min(at_once, CUTS - start)
        quarter = rng.permuted(np.tile(np.arange(blocks, dtype=np.uint8) % 4, (cuts, 1)), axis=1)
        masks = np.concatenate([(quarter == q).T for q in range(3)], axis=1).astype(np.float32)
        for b, q in pairs:
            before, after = _metrics_of_parts(b, masks), _metrics_of_parts(q, masks)
            for name in before:
                squares.setdefault(name, []).append(_sum_variances(after[name] - before[name]))
    errors = {}
    for name, sums in squares.items():
        from_halves, from_quarters = np.sum(sums, axis=0) / CUTS
        ratio = max(from_halves / from_quarters, LEAST_RATIO) if from_quarters > 0 else 1.0
        errors[name] = float(np.sqrt(from_halves * ratio))
    return errors


def _metrics_of_parts(table: SumTable, masks: npt.NDArray[np.float32]) -> dict[str, FloatArray]:
    """Return the metrics on the four quarters and six halves of each cut, (10, cuts)."""
    a, b, c = np.split(table.sums(masks), 3, axis=1)
    d = table.sums().astype(masks.dtype) - a - b - c
    parts = [a, b, c, d, a + b, c + d, a + c, b + d, a + d, b + c]
    metrics = [table.metrics_from_sums(part) for part in parts]
    return {name: np.stack([values[name] for values in metrics]) for name in metrics[0]}


def _sum_variances(values: FloatArray) -> tuple[float, float]:
    """Return the variances at n by halves and by quarters, summed over cuts."""
    differences = values[4::2] - values[5::2]
    return float((differences**2).mean(axis=0).sum() / 4), float(values[:4].var(axis=0, ddof=1).sum() / 4)
