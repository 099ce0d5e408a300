"""Selective classification: does confidence tell when to abstain?

Failure prediction asks the same of errors: are they told from right samples by less confidence? All functions take
top-label confidences and whether the prediction is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import xlog1py

from pytest_qreliab.metrics.ood import GroupInfluences, SortedScores
from pytest_qreliab.statistics.arrays import FloatArray

FEWEST = 5  # right samples, and errors: the influences of fewer do not show how much the others would vary


def aurc(confidence: FloatArray, correct: FloatArray) -> float:
    """Compute the area under the risk-coverage curve (Geifman & El-Yaniv 2017).

    It is the mean over samples of the error rate among the samples that are at least as confident. Samples of equal
    confidence are accepted together.

    Args:
        confidence: Top-label confidences, shape (n,). Only their order counts.
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).

    Returns:
        The area, in [0, 1]. 0 is best.

    Example:
        >>> import numpy as np
        >>> aurc(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 1.0, 0.0]))
        0.0625
    """
    return float(_risk_curve(confidence, correct).risk.mean())


def excess_aurc(confidence: FloatArray, correct: FloatArray) -> float:
    """Compute the excess AURC (Geifman et al. 2019).

    It is the AURC less r + (1 - r) ln(1 - r), the least that many samples of error rate r allow. The least for n
    samples is larger by some r / (2 n).

    Args:
        confidence: Top-label confidences, shape (n,). Only their order counts.
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).

    Example:
        >>> import numpy as np
        >>> round(excess_aurc(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 1.0, 0.0])), 4)
        0.0283
    """
    r = float(1 - correct.mean())
    return aurc(confidence, correct) - (r + float(xlog1py(1 - r, -r)))


class AurcInfluences(NamedTuple):
    """Influence values of the samples, shape (n,) and mean 0 each."""

    aurc: FloatArray
    excess_aurc: FloatArray


def aurc_influence(confidence: FloatArray, correct: FloatArray) -> AurcInfluences:
    """Compute how much each sample moves AURC and excess AURC.

    The first-order influence value of a sample is the derivative of the metric with respect to the sample's weight,
    times n. The variance of these values over n is the variance of the metric.

    Args:
        confidence: Top-label confidences, shape (n,).
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).

    Example:
        >>> import numpy as np
        >>> influence = aurc_influence(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 1.0, 0.0]))
        >>> influence.aurc.round(4).tolist()
        [-0.125, -0.125, -0.125, 0.375]
    """
    curve = _risk_curve(confidence, correct)
    n, error = len(curve.risk), 1 - correct
    # A sample counts in the risk of every threshold that accepts it: those at or below its confidence.
    falling = -confidence[curve.order]
    start = np.searchsorted(falling, falling, side="left")
    share = 1 / curve.accepted[curve.order]
    if_wrong, if_right = np.empty(n), np.empty(n)
    if_right[curve.order] = -(curve.risk[curve.order] * share)[::-1].cumsum()[::-1][start]
    if_wrong[curve.order] = share[::-1].cumsum()[::-1][start]
    influence = curve.risk + if_right + error * if_wrong
    influence -= influence.mean()
    r = error.mean()
    slope = -np.log1p(-r) if r < 1 else 0.0  # of the least AURC
    return AurcInfluences(influence, influence - slope * (error - r))


class _RiskCurve(NamedTuple):
    """The risk-coverage curve, with an entry for each sample."""

    risk: FloatArray  # the error rate among the samples that are at least as confident
    accepted: FloatArray  # their number
    order: npt.NDArray[np.intp]  # the samples, most confident first


def _risk_curve(confidence: FloatArray, correct: FloatArray) -> _RiskCurve:
    order = np.argsort(-confidence, kind="stable")
    falling = -confidence[order]
    last = np.searchsorted(falling, falling, side="right")
    errors = (1 - correct[order]).cumsum()
    risk, accepted = np.empty(len(order)), np.empty(len(order))
    risk[order], accepted[order] = errors[last - 1] / last, last
    return _RiskCurve(risk, accepted, order)


def augrc(confidence: FloatArray, correct: FloatArray) -> float:
    """Compute the area under the generalized risk-coverage curve (Traub et al. 2024).

    It is the chance that a sample is wrong and accepted at the confidence of another sample, which is drawn from all of
    them. Of equal confidences one half is accepted, so that it equals the trapezoids under the curve of the share of
    accepted errors by coverage. It is (1 - AUROC) a (1 - a) + (1 - a)^2 / 2, with the accuracy a and the AUROC of
    failure prediction.

    Args:
        confidence: Top-label confidences, shape (n,). Only their order counts.
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).

    Returns:
        The area, in [0, 0.5]. 0 is best.

    Example:
        >>> import numpy as np
        >>> augrc(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 1.0, 0.0]))
        0.03125
    """
    return float(((1 - correct) * _share_below(confidence, np.ones_like(correct))).mean())


def augrc_influence(confidence: FloatArray, correct: FloatArray) -> FloatArray:
    """Compute how much each sample moves AUGRC.

    A sample counts by whether it is an error that the others accept, and by the errors that it accepts.

    Args:
        confidence: Top-label confidences, shape (n,).
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).

    Returns:
        First-order influence values, shape (n,), mean 0.

    Example:
        >>> import numpy as np
        >>> augrc_influence(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 1.0, 0.0])).round(4).tolist()
        [-0.0625, -0.0625, -0.0625, 0.1875]
    """
    error = 1 - correct
    of_error = error * _share_below(confidence, np.ones_like(error))
    as_threshold = _share_below(-confidence, error)
    influence: FloatArray = of_error + as_threshold - (of_error + as_threshold).mean()
    return influence


def _share_below(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return for each value the weight of those below it and half the weight of its equals, over n."""
    _, member = np.unique(values, return_inverse=True)
    at = np.bincount(member, weights)
    share: FloatArray = (at.cumsum() - at / 2) / len(values)
    return share[member]


def failure_scores(confidence: FloatArray, correct: FloatArray) -> SortedScores:
    """Return the scores by which failures are predicted (Hendrycks & Gimpel 2017).

    Less confidence is a higher score. Right samples have the place of ID, errors that of OOD.

    Args:
        confidence: Top-label confidences, shape (n,). Only their order counts.
        correct: 1.0 if the prediction is right, else 0.0, shape (n,). At least one is 1.0, and one 0.0.

    Example:
        >>> import numpy as np
        >>> scores = failure_scores(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0]))
        >>> scores.auroc(), scores.average_precision("ood"), scores.fpr95("id")
        (0.75, 0.8333333333333333, 0.5)
    """
    right = correct == 1
    return SortedScores(-confidence[right], -confidence[~right])


def failure_influence(influences: GroupInfluences, correct: FloatArray) -> FloatArray:
    """Return influences on a statistic of failure prediction as those of samples of one set.

    Which sample is an error is as random as its confidence. So both groups come from one set of n samples, and a
    sample counts n over the size of its group as much.

    Args:
        influences: The influences of right samples and of errors, each the derivative by the sample's weight times the
            size of its group.
        correct: 1.0 if the prediction is right, else 0.0, shape (n,).

    Returns:
        Influence values, shape (n,), mean 0.

    Example:
        >>> import numpy as np
        >>> confidence, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
        >>> failure_influence(failure_scores(confidence, correct).auroc_influence(), correct).tolist()
        [0.5, -0.5, -0.5, 0.5]
    """
    n, right = len(correct), correct == 1
    influence = np.empty(n)
    influence[right] = influences.of_id * n / right.sum()
    influence[~right] = influences.of_ood * n / (~right).sum()
    return influence


@dataclass(frozen=True, kw_only=True)
class SelectiveStatistic:
    """A statistic of confidences and of what is right, with the influence of each sample."""

    value: Callable[[FloatArray, FloatArray], float]
    influence: Callable[[FloatArray, FloatArray], FloatArray]
    of_both: bool = False  # whether there must be a right sample and an error
    smooth: bool = True  # whether the influence is a derivative, see `ood.OodStatistic`


def _failure(
    value: Callable[[SortedScores], float],
    influences: Callable[[SortedScores], GroupInfluences],
    *,
    smooth: bool = True,
) -> SelectiveStatistic:
    return SelectiveStatistic(
        value=lambda confidence, correct: value(failure_scores(confidence, correct)),
        influence=lambda confidence, correct: failure_influence(
            influences(failure_scores(confidence, correct)), correct
        ),
        of_both=True,
        smooth=smooth,
    )


# By the name of the metric.
STATISTICS = {
    "aurc": SelectiveStatistic(value=aurc, influence=lambda c, r: aurc_influence(c, r).aurc),
    "eaurc": SelectiveStatistic(value=excess_aurc, influence=lambda c, r: aurc_influence(c, r).excess_aurc),
    "augrc": SelectiveStatistic(value=augrc, influence=augrc_influence),
    "failure.auroc": _failure(SortedScores.auroc, SortedScores.auroc_influence),
    "failure.aupr_error": _failure(
        lambda scores: scores.average_precision("ood"),
        lambda scores: scores.average_precision_influence("ood", fixed_sizes=False),
    ),
    "failure.aupr_success": _failure(
        lambda scores: scores.average_precision("id"),
        lambda scores: scores.average_precision_influence("id", fixed_sizes=False),
    ),
    "failure.fpr95": _failure(
        lambda scores: scores.fpr95("id"), lambda scores: scores.fpr95_influence("id"), smooth=False
    ),
}
