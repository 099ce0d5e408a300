"""The mean of paired differences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from pytest_qreliab.statistics.interval import Interval


def t_interval(differences: npt.NDArray[np.float64], alpha: float) -> Interval:
    """Student's interval on the mean of `differences`, shape (n,), n >= 2; of no width when all are equal."""
    n = len(differences)
    half = float(t.isf(alpha, n - 1)) * float(differences.std(ddof=1)) / n**0.5
    mean = float(differences.mean())
    return Interval(mean - half, mean + half)
