"""Tables of sums by confidence bin, for the metrics of calibration.

A binned metric is a function of sums over samples. A table of sums gives its value on the whole set, and on any number
of subsets at once, which is how its standard error is estimated (`statistics.half_sampling`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack
from scipy.special import ndtr

from pytest_qreliab.metrics.classification import CHUNK_ROWS, Predictions
from pytest_qreliab.metrics.definitions import BINS
from pytest_qreliab.statistics.arrays import FloatArray, IntArray
from pytest_qreliab.statistics.half_sampling import BlockIds, HalfMasks

CELLS = 64  # in each equal-mass bin: the bins of a subset end at ends of cells. Few samples are cells of their own.
# Confidences that are equal but for the rounding of float32, 16 units in the last place, share a bin.
TOLERANCE = 2e-6


def bin_indices(confidence: FloatArray, bins: int = BINS) -> IntArray:
    """Return the equal-width bin of each confidence.

    Bins are `(lo, hi]` with edges k / bins. 0.0 falls in the first bin and 1.0 in the last. A confidence is on an edge
    if it is above it by at most 2e-6, so that 0.6 is in one bin however it was rounded. torchmetrics uses
    `[lo, hi)`, so a confidence on an edge is one bin higher there.

    Args:
        confidence: Confidences in [0, 1], any shape.
        bins: The number of bins.

    Returns:
        Bins from 0 to bins - 1, int64, the shape of `confidence`.

    Example:
        >>> import numpy as np
        >>> bin_indices(np.array([0.0, 0.5, np.nextafter(0.5, 1), 0.51, 1.0]), bins=2).tolist()
        [0, 0, 0, 1, 1]
    """
    edges = np.arange(1, bins, dtype=np.float64) / bins + TOLERANCE
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


@dataclass(frozen=True, eq=False)
class BinSums:
    """The sums of the samples of each equal-width bin, shape (15,) each."""

    count: FloatArray  # the number of samples
    confidence: FloatArray  # the sum of their confidences
    correct: FloatArray  # the number of correct samples


def bin_sums(confidence: FloatArray, correct: FloatArray) -> BinSums:
    """Sum the samples of each equal-width confidence bin.

    Args:
        confidence: Top-label confidences in [0, 1], shape (n,).
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).

    Returns:
        The sums by bin, shape (15,) each.

    Example:
        >>> import numpy as np
        >>> sums = bin_sums(np.array([0.95, 1.0]), np.array([1.0, 0.0]))
        >>> float(sums.count[-1]), float(sums.confidence[-1]), float(sums.correct[-1])
        (2.0, 1.95, 1.0)
    """
    member = bin_indices(confidence)

    def total(weights: FloatArray) -> FloatArray:
        return np.bincount(member, weights, BINS).astype(np.float64)

    return BinSums(count=total(np.ones_like(confidence)), confidence=total(confidence), correct=total(correct))


class EqualWidthBins:
    """The table of `ece`, `ece.rms`, `ece.debiased` and `mce`.

    `ece` is the mean over samples of |mean confidence - accuracy| of their bin (Guo et al. 2017), in [0, 1]. `ece.rms`
    is the root of the mean of its square (Hendrycks et al. 2019; Kumar et al. 2019), which is at least `ece`. `mce` is
    the largest of these gaps. A bin may hold a single sample.

    The `ece` of a perfectly calibrated model is above 0 by chance, and more so the fewer samples there are.
    `ece.debiased` has expectation 0 for such a model and can be negative. It is the average result if one half of the
    samples decides which way a bin errs and the other half how much. Let x be a bin's gap times its share of the
    samples, and s the standard error of x: the bin adds x (2 Phi(x / s) - 1) - 2 s phi(x / s). The sum agrees with
    `ece` if gaps are clear of their errors. Otherwise it is below the truth by at most 0.48 s per bin.

    Args:
        confidence: Top-label confidences in [0, 1], shape (n,).
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).
        bins: The number of bins.
        blocks: The block of each sample, shape (n,). None gives each sample its own.

    Example:
        >>> import numpy as np
        >>> table = EqualWidthBins(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1.0, 1.0, 1.0, 0.0]))
        >>> values = table.metrics_from_sums(table.sums())
        >>> {name: round(float(value[0]), 3) for name, value in values.items()}
        {'ece': 0.1, 'ece.rms': 0.1, 'ece.debiased': -0.081, 'mce': 0.1}
    """

    def __init__(
        self, confidence: FloatArray, correct: FloatArray, bins: int = BINS, blocks: BlockIds | None = None
    ) -> None:
        gap = confidence - correct
        self._bins = bins
        blocks = np.arange(len(gap)) if blocks is None else blocks
        member = bin_indices(confidence, bins)
        self._sums = vstack([_gather(member, bins, values, blocks) for values in (np.ones_like(gap), gap, gap**2)])

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        """Return the sums over subsets of the blocks, shape (sums, subsets)."""
        return _apply(self._sums, masks)

    def metrics_from_sums(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Return the metrics of each subset, shape (subsets,) each."""
        count, gap, squares = sums.reshape(3, self._bins, -1)
        n = count.sum(axis=0)
        x = gap / n
        error = np.sqrt(np.clip(squares / n - x**2, 0, None) / n)
        ratio = np.divide(x, error, out=np.full_like(x, np.inf), where=error > 1e-12)
        density = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
        unbiased = np.abs(x) * (2 * ndtr(np.abs(ratio)) - 1) - 2 * error * density
        mean_gap = np.divide(gap, count, out=np.zeros_like(gap), where=count > 0)
        return {
            "ece": np.abs(x).sum(axis=0),
            "ece.rms": np.sqrt((x * mean_gap).sum(axis=0)),
            "ece.debiased": unbiased.sum(axis=0),
            "mce": np.abs(mean_gap).max(axis=0),
        }


class EqualMassBins:
    """The table of `ece.equal_mass`: ECE with bins of equal numbers of samples, in [0, 1].

    Numbers are equal as far as ties allow. The edges are the k n / bins-th smallest confidences, rounded up, and bins
    are `(lo, hi]`, so that equal confidences share a bin (Nguyen & O'Connor 2015; Nixon et al. 2019 call it adaptive).
    A confidence is on an edge if it is above it by at most 2e-6 of it. Each subset has edges of its own. If there are
    more than 64 distinct confidences for each bin, edges lie between as many cells of them.

    Args:
        confidence: Top-label confidences in [0, 1], shape (n,).
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).
        bins: The number of bins.
        blocks: The block of each sample, shape (n,). None gives each sample its own.

    Example:
        >>> import numpy as np
        >>> table = EqualMassBins(np.array([0.6, 0.7, 0.8, 0.9]), np.array([1.0, 0.0, 1.0, 1.0]), bins=2)
        >>> round(float(table.metrics_from_sums(table.sums())["ece.equal_mass"][0]), 3)
        0.15
    """

    def __init__(
        self, confidence: FloatArray, correct: FloatArray, bins: int = BINS, blocks: BlockIds | None = None
    ) -> None:
        distinct, member, counts = np.unique(confidence, return_inverse=True, return_counts=True)
        # The last distinct value that is on an edge at each of them.
        reach = np.searchsorted(distinct, distinct * (1 + TOLERANCE), side="right") - 1
        self._bins, self._cells = bins, len(distinct)
        cells = CELLS * bins
        if self._cells > cells:
            # The last distinct value up to each of so many evenly spaced ranks, which hold the edges of the whole set.
            ranks = np.ceil(np.arange(1, cells + 1) * len(confidence) / cells)
            last = np.unique(reach[np.searchsorted(counts.cumsum(), ranks)])
            member, self._cells, reach = np.searchsorted(last, member), len(last), np.arange(len(last))
        self._reach = reach
        gap = confidence - correct
        blocks = np.arange(len(gap)) if blocks is None else blocks
        self._sums = vstack([_gather(member, self._cells, values, blocks) for values in (np.ones_like(gap), gap)])

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        """Return the sums over subsets of the blocks, shape (sums, subsets)."""
        return _apply(self._sums, masks)

    def metrics_from_sums(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Return the metrics of each subset, shape (subsets,) each."""
        count, gap = sums.reshape(2, self._cells, -1).cumsum(axis=1)
        n = count[-1]
        wanted = np.ceil(np.arange(1, self._bins + 1)[:, None] * n / self._bins - 1e-9)
        ends = np.stack([np.searchsorted(c, w - 0.5) for c, w in zip(count.T, wanted.T, strict=True)], axis=1)
        edges = self._reach[ends]
        below = np.take_along_axis(gap, edges, axis=0)
        return {"ece.equal_mass": np.abs(np.diff(below, axis=0, prepend=0)).sum(axis=0) / n}


class ClassBins:
    """The table of `ece.classwise`, `brier.reliability` and `brier.resolution`.

    Each compares every class with all others, in equal-width bins. `ece.classwise` is the mean over classes of the ECE
    of "it is this class" with that class's probability (Kull et al. 2019; Nixon et al. 2019 call it static), in [0, 1].

    The Brier score is the sum over classes of the squared differences. It is reliability - resolution + uncertainty
    (Murphy 1973), each summed over classes, apart from how probabilities vary within a bin (Stephenson et al. 2008).
    Reliability is the mean squared gap between a bin's mean probability and its frequency; lower is better. Resolution
    is the mean squared gap between a bin's frequency and the class's; higher is better.

    Args:
        predictions: Predictions of n samples.
        bins: The number of bins.
        blocks: The block of each sample, shape (n,). None gives each sample its own.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from pytest_qreliab.metrics.classification import predict
        >>> logits = torch.log(torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75]], dtype=torch.float64))
        >>> table = ClassBins(predict(logits, np.array([0, 1, 1])))
        >>> values = table.metrics_from_sums(table.sums())
        >>> {name: round(float(value[0]), 3) for name, value in values.items()}
        {'ece.classwise': 0.25, 'brier.reliability': 0.125, 'brier.resolution': 0.111}
    """

    def __init__(self, predictions: Predictions, bins: int = BINS, blocks: BlockIds | None = None) -> None:
        # With many classes, nearly all probabilities lie in the first bin. It is a matrix, the others are sparse.
        labels, (n, classes) = predictions.labels, predictions.logits.shape
        blocks = np.arange(n) if blocks is None else blocks
        block_count = int(blocks.max()) + 1
        by_block = np.argsort(blocks, kind="stable")
        begin = np.searchsorted(blocks[by_block], np.arange(block_count + 1))
        self._first = np.empty((block_count, classes), np.float32)
        above = []
        step = max(1, CHUNK_ROWS * block_count // n)
        for start in range(0, block_count, step):
            edges = begin[start : start + step + 1]
            rows = by_block[edges[0] : edges[-1]]
            chunk = predictions.probabilities(rows)
            row, column = np.divmod(np.flatnonzero(chunk > np.float32(1 / bins + TOLERANCE)), classes)
            above.append((rows[row], column, chunk[row, column].astype(np.float64)))
            chunk[row, column] = 0
            self._first[start : start + step] = np.add.reduceat(chunk, edges[:-1] - edges[0])
        sample, column, probability = (np.concatenate(part) for part in zip(*above, strict=True))
        is_label = (column == labels[sample]).astype(np.float64)
        in_first = np.ones(n)
        in_first[sample[is_label > 0]] = 0
        cells, member = np.unique(column * bins + np.maximum(bin_indices(probability, bins), 1), return_inverse=True)
        ones, rest, block = np.ones_like(probability), len(cells), blocks[sample]
        # The count of a first bin is that of all samples less those of the other bins.
        counts = [
            _gather(column, classes, -ones, block, block_count),
            _gather(member, rest, ones, block, block_count),
        ]
        hits = [_gather(labels, classes, in_first, blocks), _gather(member, rest, is_label, block, block_count)]
        sizes = [_gather(labels, classes, np.ones(n), blocks), _gather(np.zeros(n, np.int64), 1, np.ones(n), blocks)]
        self._classes, self._cells = classes, classes + rest
        self._sparse = [vstack([*counts, *hits, *sizes]), _gather(member, rest, probability, block, block_count)]

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        """Return the sums over subsets of the blocks, shape (sums, subsets)."""
        first = self._first.sum(axis=0, dtype=np.float64)[:, None] if masks is None else self._first.T @ masks
        before, after = (_apply(matrix, masks) for matrix in self._sparse)
        return np.concatenate([before, first, after])

    def metrics_from_sums(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Return the metrics of each subset, shape (subsets,) each."""
        classes, cells = self._classes, self._cells
        hits, class_counts, n = (
            sums[cells : 2 * cells],
            sums[2 * cells : 2 * cells + classes],
            sums[2 * cells + classes],
        )
        share = sums[:cells].copy()
        share[:classes] += n
        share = 1 / (np.maximum(share, 0.5) * n)  # a bin without samples has no hits and no gap either
        gap = sums[-cells:] - hits
        resolved = np.einsum("ij,ij,ij->j", hits, hits, share)
        return {
            "ece.classwise": np.abs(gap).sum(axis=0) / (n * classes),
            "brier.reliability": np.einsum("ij,ij,ij->j", gap, gap, share),
            "brier.resolution": resolved - ((class_counts / n) ** 2).sum(axis=0),
        }


def _gather(
    member: npt.NDArray[np.integer],
    cells: int,
    values: FloatArray | npt.NDArray[np.float32],
    blocks: npt.NDArray[np.integer],
    block_count: int | None = None,
) -> csr_array:
    """Return the sums of values by cell and block, (cells, blocks)."""
    if block_count is None:
        block_count = int(blocks.max()) + 1
    return csr_array((values, (member, blocks)), shape=(cells, block_count))


def _apply(matrix: csr_array, masks: HalfMasks | None) -> FloatArray:
    """Return the sums in the precision of the masks; of all samples, in float64."""
    if masks is None:
        masks = np.ones((matrix.shape[1], 1))
    result: FloatArray = matrix.astype(masks.dtype) @ masks
    return result
