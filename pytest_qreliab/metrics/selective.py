"""Selective classification: does confidence tell when to abstain?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import xlog1py

from pytest_qreliab.statistics.arrays import FloatArray


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
