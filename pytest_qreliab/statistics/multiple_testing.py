"""P-values of many hypotheses, adjusted to the level of the whole family."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_qreliab.statistics.arrays import FloatArray, check_finite


def holm(p: npt.ArrayLike) -> FloatArray:
    """Adjust p-values for the family-wise error rate (Holm 1979).

    The k-th smallest of m becomes (m - k + 1) p, made monotone and kept below 1. Under any dependence, the probability
    that a true null hypothesis has an adjusted p-value below alpha is at most alpha.

    Args:
        p: P-values in [0, 1], shape (m,), m at least 0.

    Returns:
        The adjusted p-values in the same order, shape (m,).

    Raises:
        ValueError: A value is NaN or outside [0, 1], or there is another number of axes.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    values, order = _ascending(p)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return adjusted


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """Adjust p-values for the false discovery rate (Benjamini & Hochberg 1995).

    The k-th smallest of m becomes the least m / j p over all j >= k. For independent or positively dependent tests, at
    most a share of alpha of the adjusted p-values below alpha are, on average, false discoveries.

    Args:
        p: P-values in [0, 1], shape (m,), m at least 0.

    Returns:
        The adjusted p-values in the same order, shape (m,).

    Raises:
        ValueError: A value is NaN or outside [0, 1], or there is another number of axes.

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.02, 0.04, 0.04, 0.02]
    """
    values, order = _ascending(p)
    m = len(values)
    adjusted = np.empty_like(values)
    # The factor first, which is 1 for the largest: no value is rounded below itself.
    scaled = values[order] * (m / np.arange(1, m + 1))
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted


def _ascending(p: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Return checked p-values and the order that sorts them."""
    values = check_finite(p, "p-values", 0)
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p-values: a value outside [0, 1]")
    return values, np.argsort(values, kind="stable")
