"""Calibration metrics: do probabilities mean what they say?

The binned ones are functions of sums over samples. A table of sums gives their values on the whole set, and on any
number of its subsets at once, which is how the intervals are had (`statistics.halves`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack
from scipy.special import ndtr, xlog1py

from pytest_qreliab.metrics.classification import CHUNK_ROWS, Predictions
from pytest_qreliab.statistics import half_sampling
from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.half_sampling import BlockIds, HalfMasks, SumTable

BINS = 15
# Equal-mass bins of a subset begin and end at cells, which are single samples up to this many.
CELLS = 64 * BINS


def bin_indices(confidence: FloatArray, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The equal-width bin of each confidence, 0 to bins - 1.

    Bins are `(lo, hi]` with edges k / bins in float64; 0.0 falls in the first and 1.0 in the last. (torchmetrics
    uses `[lo, hi)`, so a confidence on an edge is one bin higher there.)
    """
    edges = np.arange(1, bins, dtype=np.float64) / bins
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def bin_sums(confidence: FloatArray, correct: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each equal-width bin: the number of samples, the sum of their confidences, and how many are right."""
    member = bin_indices(confidence)
    count, confident, right = (
        np.bincount(member, weights, BINS).astype(np.float64)
        for weights in (np.ones_like(confidence), confidence, correct)
    )
    return count, confident, right


class EqualWidthBins:
    """`ece`, `ece.debiased` and `mce` of top-label confidences, (n,), and correctness, 0 or 1, (n,).

    `ece` is the mean over samples of |mean confidence - accuracy| of their bin (Guo et al. 2017), in [0, 1], and
    `mce` the largest of these gaps (of one sample, if its bin holds no other).

    `ece` of a perfectly calibrated model is above 0, by chance, and the fewer samples the more. `ece.debiased` has
    expectation 0 there: it is what comes out on average when one half of the samples tells which way a bin
    errs and the other half how much that way. It can be negative. With a bin's gap x (times its share of the
    samples) of standard error s that is x (2 Phi(x / s) - 1) - 2 s phi(x / s). It agrees with `ece` where gaps are
    clear of their errors, and is below the truth by at most .48 s per bin where they are not.
    """

    def __init__(
        self, confidence: FloatArray, correct: FloatArray, bins: int = BINS, bundle: BlockIds | None = None
    ) -> None:
        gap = confidence - correct
        self._bins = bins
        bundle = np.arange(len(gap)) if bundle is None else bundle
        member = bin_indices(confidence, bins)
        self._sums = vstack([_gather(member, bins, values, bundle) for values in (np.ones_like(gap), gap, gap**2)])

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        return _apply(self._sums, masks)

    def values(self, sums: FloatArray) -> dict[str, FloatArray]:
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
            "ece.debiased": unbiased.sum(axis=0),
            "mce": np.abs(mean_gap).max(axis=0),
        }


class EqualMassBins:
    """`ece.equal_mass`: ECE with bins that hold the same number of samples, as far as ties allow, in [0, 1].

    The edges are the k n / bins-th smallest confidences, rounded up, and bins are `(lo, hi]`, so that equal
    confidences share a bin (Nguyen & O'Connor 2015; Nixon et al. 2019 call it adaptive). In a subset the edges are
    found anew; where there are more than 960 distinct confidences, among those that cut them into 960 cells.
    """

    def __init__(
        self, confidence: FloatArray, correct: FloatArray, bins: int = BINS, bundle: BlockIds | None = None
    ) -> None:
        distinct, member, counts = np.unique(confidence, return_inverse=True, return_counts=True)
        self._bins, self._cells = bins, len(distinct)
        if self._cells > CELLS:
            # The last distinct value up to each of CELLS evenly spaced ranks, which hold the edges of the whole set.
            ranks = np.ceil(np.arange(1, CELLS + 1) * len(confidence) / CELLS)
            last = np.unique(np.searchsorted(counts.cumsum(), ranks))
            member, self._cells = np.searchsorted(last, member), len(last)
        gap = confidence - correct
        bundle = np.arange(len(gap)) if bundle is None else bundle
        self._sums = vstack([_gather(member, self._cells, values, bundle) for values in (np.ones_like(gap), gap)])

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        return _apply(self._sums, masks)

    def values(self, sums: FloatArray) -> dict[str, FloatArray]:
        count, gap = sums.reshape(2, self._cells, -1).cumsum(axis=1)
        n = count[-1]
        wanted = np.ceil(np.arange(1, self._bins + 1)[:, None] * n / self._bins - 1e-9)
        edges = np.stack([np.searchsorted(c, w - 0.5) for c, w in zip(count.T, wanted.T, strict=True)], axis=1)
        below = np.take_along_axis(gap, edges, axis=0)
        return {"ece.equal_mass": np.abs(np.diff(below, axis=0, prepend=0)).sum(axis=0) / n}


class ClassBins:
    """`ece.classwise`, `brier.reliability` and `brier.resolution`: each class against all others, in equal-width bins.

    `ece.classwise` is the mean over classes of the ECE of "it is this class" with that class's probability (Kull
    et al. 2019; Nixon et al. 2019 call it static), in [0, 1]. The Brier score, the sum over classes of the squared
    differences, is reliability - resolution + uncertainty (Murphy 1973), each summed over classes, apart from how
    probabilities vary within a bin (Stephenson et al. 2008). Reliability is the mean squared gap of a bin's mean
    probability and its frequency (lower is better), resolution that of its frequency and the class's (higher is).

    From float32 probabilities: one within some 1e-7 of an edge may fall on its other side.
    """

    def __init__(self, predictions: Predictions, bins: int = BINS, bundle: BlockIds | None = None) -> None:
        # Of many classes nearly all probabilities lie in the first bin: it is a matrix, the others are sparse.
        labels, (n, classes) = predictions.labels, predictions.logits.shape
        bundle = np.arange(n) if bundle is None else bundle
        bundles = int(bundle.max()) + 1
        by_bundle = np.argsort(bundle, kind="stable")
        begin = np.searchsorted(bundle[by_bundle], np.arange(bundles + 1))
        self._first = np.empty((bundles, classes), np.float32)
        above = []
        step = max(1, CHUNK_ROWS * bundles // n)
        for start in range(0, bundles, step):
            edges = begin[start : start + step + 1]
            rows = by_bundle[edges[0] : edges[-1]]
            chunk = predictions.probabilities(rows)
            row, of_class = np.divmod(np.flatnonzero(chunk > np.float32(1 / bins)), classes)
            above.append((rows[row], of_class, chunk[row, of_class].astype(np.float64)))
            chunk[row, of_class] = 0
            self._first[start : start + step] = np.add.reduceat(chunk, edges[:-1] - edges[0])
        sample, of_class, probability = (np.concatenate(part) for part in zip(*above, strict=True))
        is_label = (of_class == labels[sample]).astype(np.float64)
        in_first = np.ones(n)
        in_first[sample[is_label > 0]] = 0
        cells, member = np.unique(of_class * bins + np.maximum(bin_indices(probability, bins), 1), return_inverse=True)
        ones, rest, of_sample = np.ones_like(probability), len(cells), bundle[sample]
        # Counts of the first bins are those of all samples less the others'.
        counts = [
            _gather(of_class, classes, -ones, of_sample, bundles),
            _gather(member, rest, ones, of_sample, bundles),
        ]
        hits = [_gather(labels, classes, in_first, bundle), _gather(member, rest, is_label, of_sample, bundles)]
        sizes = [_gather(labels, classes, np.ones(n), bundle), _gather(np.zeros(n, np.int64), 1, np.ones(n), bundle)]
        self._classes, self._cells = classes, classes + rest
        self._sparse = [vstack([*counts, *hits, *sizes]), _gather(member, rest, probability, of_sample, bundles)]

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        first = self._first.sum(axis=0, dtype=np.float64)[:, None] if masks is None else self._first.T @ masks
        before, after = (_apply(matrix, masks) for matrix in self._sparse)
        return np.concatenate([before, first, after])

    def values(self, sums: FloatArray) -> dict[str, FloatArray]:
        classes, cells = self._classes, self._cells
        hits, of_class, n = sums[cells : 2 * cells], sums[2 * cells : 2 * cells + classes], sums[2 * cells + classes]
        share = sums[:cells].copy()
        share[:classes] += n
        share = 1 / (np.maximum(share, 0.5) * n)  # a bin without samples has no hits and no gap either
        gap = sums[-cells:] - hits
        resolved = np.einsum("ij,ij,ij->j", hits, hits, share)
        return {
            "ece.classwise": np.abs(gap).sum(axis=0) / (n * classes),
            "brier.reliability": np.einsum("ij,ij,ij->j", gap, gap, share),
            "brier.resolution": resolved - ((of_class / n) ** 2).sum(axis=0),
        }


# The metrics of each table.
BINNED: dict[str, Callable[[Predictions, BlockIds | None], SumTable]] = {
    **dict.fromkeys(
        ("ece", "ece.debiased", "mce"), lambda p, bundle: EqualWidthBins(p.confidence, p.correct, bundle=bundle)
    ),
    "ece.equal_mass": lambda p, bundle: EqualMassBins(p.confidence, p.correct, bundle=bundle),
    **dict.fromkeys(
        ("ece.classwise", "brier.reliability", "brier.resolution"), lambda p, bundle: ClassBins(p, bundle=bundle)
    ),
}


# What one sample that is judged otherwise changes, times n: of an ECE, which is a mean over samples, at most; of the
# resolution about so much where nearly all samples are judged rightly, in simulations. The others do without.
ONE_SAMPLE = {"ece": 1.0, "ece.equal_mass": 1.0, "ece.debiased": 1.0, "brier.resolution": 0.5}


def tables(predictions: Predictions, names: Collection[str] = BINNED.keys()) -> list[SumTable]:
    """The tables that hold these metrics, and perhaps others, of the bundles that `halves` cuts; each made once."""
    bundle = half_sampling.assign_blocks(len(predictions))
    for name in names:
        maker = BINNED[name]
        if maker not in predictions.memo:
            predictions.memo[maker] = maker(predictions, bundle)
    return [predictions.memo[maker] for maker in dict.fromkeys(BINNED[name] for name in BINNED if name in names)]


class MeanOver:
    """The means of the metrics of several tables, of the same samples each time: those of a grid of corruptions."""

    def __init__(self, tables: Sequence[SumTable]) -> None:
        self._tables = tables
        self._ends = np.cumsum([len(table.sums()) for table in tables])[:-1]

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        return np.concatenate([table.sums(masks) for table in self._tables])

    def values(self, sums: FloatArray) -> dict[str, FloatArray]:
        parts = zip(self._tables, np.split(sums, self._ends), strict=True)
        values = [table.values(part) for table, part in parts]
        return {name: np.mean([of[name] for of in values], axis=0) for name in values[0]}


def errors_of_change(b: Sequence[Predictions], q: Sequence[Predictions], names: Collection[str]) -> dict[str, float]:
    """The standard errors of the changes of binned metrics; their means over image sets, if the same samples are seen
    several times, as corrupted in one way and another.

    Some have the part of two more samples, one judged otherwise to either side: as of `Estimate.padded`, where few
    samples differ at all.
    """
    of_models = ([tables(seen, names) for seen in model] for model in (b, q))
    before, after = ([MeanOver(of_sets) for of_sets in zip(*model, strict=True)] for model in of_models)
    errors = half_sampling.half_sample_errors(
        list(zip(before, after, strict=True)), min(len(b[0]), half_sampling.MOST_BUNDLES)
    )
    return {name: math.hypot(error, 2**0.5 * ONE_SAMPLE.get(name, 0.0) / len(b[0])) for name, error in errors.items()}


def uncertainty(labels: npt.NDArray[np.int64]) -> float:
    """The Brier score's uncertainty, summed over classes: the score of the class frequencies themselves."""
    frequency = np.unique(labels, return_counts=True)[1] / len(labels)
    return float((frequency * (1 - frequency)).sum())


def aurc(confidence: FloatArray, correct: FloatArray) -> float:
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017), in [0, 1]: does confidence tell when to abstain?

    The mean over samples of the error rate among those that are at least as confident. 0 is best.
    """
    return float(_risk(confidence, correct)[0].mean())


def excess_aurc(confidence: FloatArray, correct: FloatArray) -> float:
    """E-AURC (Geifman et al. 2019): AURC above r + (1 - r) ln(1 - r), the least that an error rate of r allows.

    The least is that of many samples; of n samples it is larger by some r / (2 n).
    """
    r = float(1 - correct.mean())
    return aurc(confidence, correct) - (r + float(xlog1py(1 - r, -r)))


def aurc_influence(confidence: FloatArray, correct: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How much each sample moves AURC and E-AURC: first-order influence values, each (n,), of mean 0.

    The derivative of the metric with respect to the sample's weight, times n; their variance over n is the metric's.
    """
    risk, accepted, order = _risk(confidence, correct)
    n, error = len(risk), 1 - correct
    # A sample counts in the risk of every threshold that accepts it: those at or below its confidence.
    falling = -confidence[order]
    start = np.searchsorted(falling, falling, side="left")
    share = 1 / accepted[order]
    if_wrong, if_right = np.empty(n), np.empty(n)
    if_right[order] = -(risk[order] * share)[::-1].cumsum()[::-1][start]
    if_wrong[order] = share[::-1].cumsum()[::-1][start]
    of_aurc = risk + if_right + error * if_wrong
    of_aurc -= of_aurc.mean()
    r = error.mean()
    slope = -np.log1p(-r) if r < 1 else 0.0  # of the least AURC
    return of_aurc, of_aurc - slope * (error - r)


def _risk(confidence: FloatArray, correct: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Per sample the error rate among those at least as confident, and their number; and the order, most first."""
    order = np.argsort(-confidence, kind="stable")
    falling = -confidence[order]
    last = np.searchsorted(falling, falling, side="right")
    errors = (1 - correct[order]).cumsum()
    risk, accepted = np.empty(len(order)), np.empty(len(order))
    risk[order], accepted[order] = errors[last - 1] / last, last
    return risk, accepted, order


def _gather(
    member: npt.NDArray[np.integer],
    cells: int,
    values: FloatArray | npt.NDArray[np.float32],
    bundle: npt.NDArray[np.integer],
    bundles: int | None = None,
) -> csr_array:
    """A matrix, (cells, bundles), that sums values by cell, each of which belongs to a bundle."""
    return csr_array((values, (member, bundle)), shape=(cells, int(bundle.max()) + 1 if bundles is None else bundles))


def _apply(matrix: csr_array, masks: HalfMasks | None) -> FloatArray:
    """The sums of all samples in float64, or of the masks' in their own precision."""
    if masks is None:
        masks = np.ones((matrix.shape[1], 1))
    result: FloatArray = matrix.astype(masks.dtype) @ masks
    return result


def fit_logit_scale(cosines: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """The factor of the cosines, (n, classes), under which the labels, (n,), are most likely: temperature scaling.

    Guo et al. 2017, with the reciprocal of the temperature. As in Platt 1999, the label counts (n + 1) / (n + 2) and
    the other classes share the rest, so that the best factor is finite even where every sample is classified rightly.
    The loss is convex in the factor, which is searched from 0.01 to 10,000. A constant logit bias does not matter.
    Raises ValueError for values that are not finite.
    """
    if not np.isfinite(cosines).all():
        raise ValueError("NaN or infinity in the cosines")
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    n, classes = cosines.shape
    rest = 1 / (n + 2)
    of_label = cosines[np.arange(n), labels]
    target = (1 - rest) * of_label + rest * (cosines.sum(axis=1) - of_label) / (classes - 1)

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return float((logsumexp(factor * cosines, axis=1) - factor * target).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(1e4)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))
