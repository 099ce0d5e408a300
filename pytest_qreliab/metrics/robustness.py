"""Robustness on correctness in {0, 1} (or bool): corruptions, covariate shift, spurious correlation, groups.

The ratios are `Estimate`s, so that each has an interval: `.value`, `.interval(alpha)`. Positive is worse. Over an
accuracy of 0 a ratio is NaN, and so are its bounds. The intervals are of Wald's kind: without any sample that the
models answer differently they have no width, however few the samples; for the relative drop on one image set
`statistics.ratios` has an interval that keeps its level there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_qreliab.statistics import clusters, influence
from pytest_qreliab.statistics.checks import Floats, finite
from pytest_qreliab.statistics.influence import Estimate


def accuracy(correct: npt.ArrayLike, images: str) -> Estimate:
    """Accuracy on the image set called `images`, correctness of shape (n,), n >= 2.

    Estimates of the same set are paired, of different sets independent: a set that holds the same images as another,
    each shifted, has that one's name. Raises ValueError for another shape, NaN or infinity.
    """
    return influence.mean(correct, images)


def corruption_accuracies(correct: npt.ArrayLike) -> Floats:
    """Accuracy in each cell, (kinds, severities), of correctness (kinds, severities, n).

    Raises ValueError for another shape, an empty axis, NaN or infinity.
    """
    cells: Floats = finite(correct, "correctness under corruption", 1, 1, 1).mean(axis=2)
    return cells


def corruption_accuracy(correct: npt.ArrayLike, images: str) -> Estimate:
    """Mean accuracy over the grid, of correctness (kinds, severities, n), n >= 2: every cell counts alike.

    The same n images of the set `images` are in every cell, and images are what varies. Raises ValueError for
    another shape, NaN or infinity.
    """
    return clusters.grid_mean(correct, images)


def relative_drop(reference: Estimate, other: Estimate) -> Estimate:
    """(reference - other) / reference: the study's d(D) for full precision and quantized accuracy on D.

    The relative shift drop and the spurious gap are of the same form, within one model.
    """
    return (reference - other) / reference


def shift_drop(in_distribution: Estimate, shifted: Estimate) -> Estimate:
    """A(m, ID) - A(m, shifted) of one model m; its relative form is `relative_drop`."""
    return in_distribution - shifted


class Spurious(NamedTuple):
    """One model's accuracies where the background is the common one, and where it is not (CounterAnimal)."""

    common: Estimate
    counter: Estimate


def spurious_gap(model: Spurious) -> Estimate:
    """RSG(m) = (A(m, common) - A(m, counter)) / A(m, common), the study's relative spurious gap."""
    return relative_drop(model.common, model.counter)


def spurious_gap_rise(baseline: Spurious, quantized: Spurious) -> Estimate:
    """dRSG = RSG(quantized) - RSG(baseline)."""
    return spurious_gap(quantized) - spurious_gap(baseline)


def additional_vulnerability(baseline: Spurious, quantized: Spurious) -> Estimate:
    """V = d(counter) - d(common), the study's; V = dRSG * A(quantized, common) / A(baseline, counter)."""
    of_counter, of_common = (relative_drop(b, q) for b, q in zip(baseline[::-1], quantized[::-1], strict=True))
    return of_counter - of_common


class Group(NamedTuple):
    """A group, by its id in `groups`, and the accuracy in it."""

    id: int
    accuracy: float


def worst_group(correct: npt.ArrayLike, groups: npt.ArrayLike) -> Group:
    """The group of least accuracy (Sagawa et al. 2020); of equal ones that of the smallest id.

    Correctness and integer group ids, both (n,), n >= 1. Raises ValueError for another shape, NaN or infinity.
    """
    ids, hits, present = _by_group(correct, groups)
    accuracies = hits[0] / present[0]
    return Group(int(ids[accuracies.argmin()]), float(accuracies.min()))


def worst_group_accuracy(
    correct: npt.ArrayLike, groups: npt.ArrayLike, counts: npt.NDArray[np.integer] | None = None
) -> Floats:
    """The least accuracy of any group, in [0, 1], of correctness and integer group ids, both (n,), n >= 1.

    `counts`, (replicates, n), says how often each sample occurs in each replicate; the result has shape
    (replicates,), or () without them. Groups that a replicate lacks do not count in it. Raises ValueError as
    `worst_group`.
    """
    _, hits, present = _by_group(correct, groups, counts)
    accuracies = np.divide(hits, present, out=np.full_like(hits, np.inf), where=present > 0)
    result: Floats = accuracies.min(axis=1)
    return result if counts is not None else result[0]


def _by_group(
    correct: npt.ArrayLike, groups: npt.ArrayLike, counts: npt.NDArray[np.integer] | None = None
) -> tuple[npt.NDArray[np.integer], Floats, Floats]:
    """Group ids, (groups,), and per replicate how many samples of each are correct and present."""
    hits = finite(correct, "correctness", 1)
    ids, member = np.unique(np.asarray(groups), return_inverse=True)
    if member.shape != hits.shape:
        raise ValueError(f"correctness of shape {hits.shape}, but groups of shape {member.shape}")
    weights = np.ones((1, len(hits))) if counts is None else counts.astype(np.float64)
    of_group = (member[:, None] == np.arange(len(ids))).astype(np.float64)
    return ids, weights @ (of_group * hits[:, None]), weights @ of_group
