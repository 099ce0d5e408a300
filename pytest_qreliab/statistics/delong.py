"""The difference of two AUROCs on the same samples (DeLong, DeLong & Clarke-Pearson 1988)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from pytest_qreliab.statistics.interval import Interval

Floats = npt.NDArray[np.float64]


class Placements(NamedTuple):
    """Structural components of one AUROC: per OOD sample, (n_ood,), and per ID sample, (n_id,)."""

    ood: Floats
    id: Floats


def variance(placements: Sequence[Placements]) -> float:
    """Variance of the mean AUROC over OOD sets that share their ID samples.

    Each entry may also hold the difference of two models' components, which gives the variance of the
    difference. The ID part is averaged over the sets before its variance is taken, so that the sets'
    covariance through the shared samples is counted; the OOD parts are independent.
    """
    sets = len(placements)
    shared = np.mean([entry.id for entry in placements], axis=0)
    of_id = float(shared.var(ddof=1)) / len(shared)
    of_ood = sum(float(entry.ood.var(ddof=1)) / len(entry.ood) for entry in placements) / sets**2
    return of_id + of_ood


def difference_interval(baseline: Sequence[Placements], quantized: Sequence[Placements], alpha: float) -> Interval:
    """Interval on the change of the mean AUROC, one entry per OOD set in both models, same order."""
    changes = [Placements(q.ood - b.ood, q.id - b.id) for b, q in zip(baseline, quantized, strict=True)]
    estimate = float(np.mean([change.ood.mean() for change in changes]))
    half = float(norm.isf(alpha)) * variance(changes) ** 0.5
    return Interval(estimate - half, estimate + half)
