"""P-values of many hypotheses, adjusted so that each can be held against the level of the whole family."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_qreliab.statistics.arrays import FloatArray, finite


def holm(p: npt.ArrayLike) -> FloatArray:
    """Adjusted p-values, (m,), in the order given: at most alpha of them all are ever falsely below alpha.

    The k-th smallest is (m - k + 1) p, made monotone and kept below 1 (Holm 1979): family-wise error under any
    dependence. `p`, (m,), may be empty. Raises ValueError for NaN or a value outside [0, 1].
    """
    values, order = _ascending(p)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return adjusted


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """Adjusted p-values, (m,), in the order given: of those below alpha, alpha on average are false discoveries.

    The k-th smallest is the least m / j p over j >= k (Benjamini & Hochberg 1995): for independent or positively
    dependent tests. `p`, (m,), may be empty. Raises ValueError for NaN or a value outside [0, 1].
    """
    values, order = _ascending(p)
    m = len(values)
    adjusted = np.empty_like(values)
    # The factor first, which is 1 for the largest: no value is rounded below itself.
    scaled = values[order] * (m / np.arange(1, m + 1))
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted


def _ascending(p: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    values = finite(p, "p-values", 0)
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p-values: a value outside [0, 1]")
    return values, np.argsort(values, kind="stable")
