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
