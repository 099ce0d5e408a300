"""Calibration: do probabilities mean what they say?

The metrics with bins are functions of sums over samples, which `metrics.binning` holds in tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np

from pytest_qreliab.metrics.binning import ClassBins, EqualMassBins, EqualWidthBins
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.definitions import BINS
from pytest_qreliab.statistics import half_sampling
from pytest_qreliab.statistics.arrays import FloatArray, IntArray
from pytest_qreliab.statistics.half_sampling import BlockIds, HalfMasks, SumTable

# The metrics of each table, with the given number of bins.
BINNED: dict[str, Callable[[Predictions, int, BlockIds | None], SumTable]] = {
    **dict.fromkeys(
        ("ece", "ece.rms", "ece.debiased", "mce"),
        lambda p, bins, blocks: EqualWidthBins(p.confidence, p.correct, bins, blocks),
    ),
    "ece.equal_mass": lambda p, bins, blocks: EqualMassBins(p.confidence, p.correct, bins, blocks),
    **dict.fromkeys(
        ("ece.classwise", "brier.reliability", "brier.resolution"), lambda p, bins, blocks: ClassBins(p, bins, blocks)
    ),
}

# How much a metric times n changes if one sample is judged otherwise. It is the most for an ECE, which is a mean over
# samples. For the resolution it is about so much in simulations, if nearly all samples are judged rightly. Others do
# without.
ONE_SAMPLE = {"ece": 1.0, "ece.rms": 1.0, "ece.equal_mass": 1.0, "ece.debiased": 1.0, "brier.resolution": 0.5}


def build_tables(predictions: Predictions, names: Collection[str] = BINNED.keys(), bins: int = BINS) -> list[SumTable]:
    """Return the tables of sums for metrics.

    A table is built once and kept with the predictions.

    Args:
        predictions: Predictions of n samples, which go into the blocks of `assign_blocks(n)`.
        names: Names of `BINNED`.
        bins: The number of bins.

    Returns:
        The fewest tables that hold these metrics. They may hold others, too.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from pytest_qreliab.metrics.classification import predict
        >>> predictions = predict(torch.eye(4, dtype=torch.float64), np.arange(4))
        >>> [type(table).__name__ for table in build_tables(predictions, ["ece", "mce"])]
        ['EqualWidthBins']
    """
    blocks = half_sampling.assign_blocks(len(predictions))
    for name in names:
        build = BINNED[name]
        if (build, bins) not in predictions.memo:
            predictions.memo[build, bins] = build(predictions, bins, blocks)
    return [predictions.memo[build, bins] for build in dict.fromkeys(BINNED[name] for name in BINNED if name in names)]


class MeanTable:
    """The mean metrics of several tables, for a grid of corruptions.

    Args:
        tables: Tables of the same class, over the same samples in the same blocks.

    Example:
        >>> import numpy as np
        >>> right, wrong = (EqualWidthBins(np.ones(4), np.full(4, correct)) for correct in (1.0, 0.0))
        >>> table = MeanTable([right, wrong])
        >>> float(table.metrics_from_sums(table.sums())["ece"][0])
        0.5
    """

    def __init__(self, tables: Sequence[SumTable]) -> None:
        self._tables = tables
        self._ends = np.cumsum([len(table.sums()) for table in tables])[:-1]

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        """Return the sums over subsets of the blocks, shape (sums, subsets)."""
        return np.concatenate([table.sums(masks) for table in self._tables])

    def metrics_from_sums(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Return the mean metrics of each subset, shape (subsets,) each."""
        parts = zip(self._tables, np.split(sums, self._ends), strict=True)
        metrics = [table.metrics_from_sums(part) for table, part in parts]
        return {name: np.mean([values[name] for values in metrics], axis=0) for name in metrics[0]}


def change_errors(
    baseline: Sequence[Predictions], quantized: Sequence[Predictions], names: Collection[str], bins: int = BINS
) -> dict[str, float]:
    """Estimate the standard errors of changes of binned metrics.

    Metrics are means over the image sets. Some errors include two more samples, one judged otherwise to either side, in
    case few samples differ at all. It is the remedy of `Estimate.pad`.

    Args:
        baseline: Predictions of the baseline, by image set. The sets hold the same samples in the same order, for
            example under several corruptions.
        quantized: Predictions of the quantized model on the same sets.
        names: Names of `BINNED`.
        bins: The number of bins.

    Returns:
        The standard error of each metric by name. It is infinite for fewer than 8 samples.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from pytest_qreliab.metrics.classification import predict
        >>> logits, labels = torch.eye(4, dtype=torch.float64).repeat(25, 1), np.arange(100) % 4
        >>> errors = change_errors([predict(logits, labels)], [predict(logits, labels)], ["ece"])
        >>> round(errors["ece"], 4)
        0.0141
    """
    by_model = ([build_tables(predictions, names, bins) for predictions in model] for model in (baseline, quantized))
    before, after = ([MeanTable(of_sets) for of_sets in zip(*model, strict=True)] for model in by_model)
    n = len(baseline[0])
    errors = half_sampling.half_sample_errors(list(zip(before, after, strict=True)), min(n, half_sampling.MAX_BLOCKS))
    return {name: math.hypot(error, 2**0.5 * ONE_SAMPLE.get(name, 0.0) / n) for name, error in errors.items()}


def brier_uncertainty(labels: IntArray) -> float:
    """Compute the uncertainty of the Brier score, summed over classes (Murphy 1973).

    It is the score of predicting the class frequencies for every sample.

    Args:
        labels: Labels, int64, shape (n,).

    Returns:
        The uncertainty, in [0, 1).

    Example:
        >>> import numpy as np
        >>> brier_uncertainty(np.array([0, 0, 1, 1]))
        0.5
    """
    frequency = np.unique(labels, return_counts=True)[1] / len(labels)
    return float((frequency * (1 - frequency)).sum())


def fit_logit_scale(cosines: FloatArray, labels: IntArray) -> float:
    """Fit the logit scale under which the labels are most likely.

    This is temperature scaling (Guo et al. 2017). The scale is the reciprocal of the temperature. As in Platt 1999, the
    label counts (n + 1) / (n + 2) and the other classes share the rest, so that the best scale is finite even if every
    sample is classified rightly. The loss is convex in the scale, which is searched from 0.01 to 10,000. A constant
    logit bias does not matter.

    Args:
        cosines: Cosines of images and classes, shape (n, classes).
        labels: Labels, int64, shape (n,).

    Raises:
        ValueError: A cosine is NaN or infinite.

    Example:
        >>> import numpy as np
        >>> cosines = np.repeat([[0.3, 0.2], [0.2, 0.3]], 50, axis=0)
        >>> labels = np.repeat([0, 1], 50)
        >>> labels[::10] = 1 - labels[::10]  # one of ten labels is another
        >>> round(fit_logit_scale(cosines, labels), 1)
        21.1
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

    result = minimize_scalar(loss, bounds=(np.log(0.01), np.log(1e4)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(result.x))
