"""Calibration metrics on top-label confidences in [0, 1] and correctness in {0, 1}, both of shape (n,)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 15


def bin_indices(confidence: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The equal-width bin of each confidence, 0 to bins - 1.

    Bins are `(lo, hi]` with edges k / bins in float64; 0.0 falls in the first and 1.0 in the last. (torchmetrics
    uses `[lo, hi)`, so a confidence on an edge is one bin higher there.)
    """
    edges = np.arange(1, bins, dtype=np.float64) / bins
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def expected_calibration_error(
    confidence: Floats,
    correct: Floats,
    counts: npt.NDArray[np.integer] | None = None,
    bins: int = BINS,
) -> Floats:
    """ECE: the mean over samples of |mean confidence - accuracy| of their bin (Guo et al. 2017), in [0, 1].

    `counts`, (replicates, n), says how often each sample occurs in each replicate; the result has shape
    (replicates,), or () without them.
    """
    member = bin_indices(confidence, bins)[:, None] == np.arange(bins)
    gaps = member * (confidence - correct)[:, None]
    weights = np.ones((1, len(correct))) if counts is None else counts.astype(np.float64)
    result: Floats = np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
    return result if counts is not None else result[0]


def fit_logit_scale(cosines: Floats, labels: npt.NDArray[np.int64]) -> float:
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
