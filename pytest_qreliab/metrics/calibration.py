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
    """The factor of the cosines, (n, classes), that makes the labels, (n,), most likely: temperature scaling.

    Guo et al. 2017, with the reciprocal of the temperature; the NLL is convex in it. The search is kept to 0.01 to
    10,000, where it ends if all samples are classified rightly or no scale helps. A constant logit bias does
    not matter. Raises ValueError for values that are not finite.
    """
    if not np.isfinite(cosines).all():
        raise ValueError("NaN or infinity in the cosines")
    from scipy.optimize import minimize_scalar

    def nll(log_scale: float) -> float:
        logits = np.exp(log_scale) * cosines
        logits -= logits.max(axis=1, keepdims=True)
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]).mean())

    found = minimize_scalar(nll, bounds=(np.log(0.01), np.log(1e4)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))
