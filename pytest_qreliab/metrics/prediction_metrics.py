"""The table of the metrics of predictions. A new metric is one entry."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_qreliab.metrics.definitions import BINS, MOST_BINS, Direction
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.metrics.prediction_kinds import (
    Accuracy,
    BalancedAccuracy,
    Binned,
    HitRate,
    MeanGap,
    PairMean,
    PairShare,
    PredictionMetric,
    SampleMean,
    Selective,
)

if TYPE_CHECKING:
    from pytest_qreliab.metrics.classification import Predictions
    from pytest_qreliab.statistics.arrays import FloatArray


def _kl(baseline: Predictions, quantized: Predictions) -> FloatArray:
    from pytest_qreliab.metrics import classification

    return classification.kl_divergence(baseline, quantized)


def _binned(name: str, header: str, text: str, spread: float | None = None, *, better: Direction = "lower") -> Binned:
    help_text = text.format(bins=BINS)
    return Binned(name=name, aspect="calibration", better=better, header=header, help=help_text, spread=spread)


# In the order in which results list them.
TABLE: tuple[PredictionMetric | PairMean, ...] = (
    Accuracy(
        name="accuracy",
        aspect="accuracy",
        better="higher",
        header="accuracy",
        help="top-1 accuracy",
        spread=0.23,
        samples=lambda p: p.correct,
    ),
    HitRate(
        name="top5_accuracy",
        aspect="accuracy",
        better="higher",
        header="top-5 accuracy",
        help="share with the label among the five best",
        spread=0.1,
        samples=lambda p: p.in_top5,
    ),
    BalancedAccuracy(
        name="balanced_accuracy",
        aspect="accuracy",
        better="higher",
        header="balanced accuracy",
        help="mean over classes of the recall",
        spread=0.23,
        samples=lambda p: p.correct,
    ),
    PairShare(
        name="agreement",
        aspect="accuracy",
        better="higher",
        header="agreement",
        help="share predicted as by the baseline",
        spread=0.26,
        samples=lambda b, q: (b.predicted == q.predicted).astype(float),
        at_baseline=1.0,
    ),
    PairShare(
        name="flips.lost",
        aspect="accuracy",
        better="lower",
        header="flips lost",
        help="share right in the baseline, wrong here",
        spread=0.17,
        samples=lambda b, q: (b.correct > q.correct).astype(float),
    ),
    PairShare(
        name="flips.gained",
        aspect="accuracy",
        better="lower",
        header="flips gained",
        help="share wrong in the baseline, right here",
        spread=0.16,
        samples=lambda b, q: (b.correct < q.correct).astype(float),
    ),
    PairMean(
        name="kl",
        aspect="accuracy",
        better="lower",
        header="KL",
        help="mean KL divergence of the probabilities from the baseline's, nats",
        spread=0.03,
        samples=_kl,
    ),
    SampleMean(
        name="nll",
        aspect="calibration",
        better="lower",
        header="NLL",
        help="mean negative log-likelihood of the true class, nats",
        spread=0.18,
        samples=lambda p: p.nll,
    ),
    SampleMean(
        name="brier",
        aspect="calibration",
        better="lower",
        header="Brier",
        help="mean squared distance to the one-hot label, 0 to 2",
        spread=0.09,
        samples=lambda p: p.brier,
    ),
    _binned(
        "brier.reliability",
        "Brier reliability",
        "what the Brier score owes to miscalibration: squared gaps of {bins} bins, summed over classes",
        0.12,
    ),
    _binned(
        "brier.resolution",
        "Brier resolution",
        "what the Brier score gains by telling samples apart: {bins} bins, summed over classes",
        0.14,
        better="higher",
    ),
    _binned("ece", "ECE", "expected calibration error, {bins} equal-width bins (lo, hi]", 0.32),
    _binned("ece.equal_mass", "ECE equal mass", "adaptive ECE: {bins} bins of as many samples each", 0.31),
    _binned("ece.rms", "RMS CE", "root mean square calibration error, {bins} equal-width bins", 0.42),
    _binned(
        "ece.debiased",
        "ECE debiased",
        "ECE less what chance adds to it: 0 on average when perfectly calibrated, {bins} bins",
        0.44,
    ),
    _binned("ece.classwise", "ECE classwise", "mean over classes of the ECE of that class, {bins} bins", 0.05),
    _binned("mce", "MCE", "largest gap of confidence and accuracy in one of {bins} bins"),
    MeanGap(
        name="confidence_gap",
        aspect="calibration",
        better="neither",
        header="confidence gap",
        help="mean confidence minus accuracy: positive is overconfident",
        spread=0.24,
        first=lambda p: p.confidence,
        second=lambda p: p.correct,
    ),
    Selective(
        name="aurc",
        aspect="calibration",
        better="lower",
        header="AURC",
        help="area under the risk-coverage curve",
        spread=0.09,
    ),
    Selective(
        name="eaurc",
        aspect="calibration",
        better="lower",
        header="E-AURC",
        help="AURC above the least that the accuracy allows",
        spread=0.11,
    ),
    Selective(
        name="augrc",
        aspect="calibration",
        better="lower",
        header="AUGRC",
        help="area under the generalized risk-coverage curve: how often an error is accepted, 0 to 0.5",
        spread=0.06,
    ),
    Selective(
        name="failure.auroc",
        aspect="calibration",
        better="higher",
        header="failure AUROC",
        help="failure prediction: AUROC of errors against right samples by confidence",
        spread=0.32,
    ),
    Selective(
        name="failure.aupr_error",
        aspect="calibration",
        better="higher",
        header="failure AUPR error",
        help="failure prediction: average precision with errors as the positive class",
        spread=0.88,
    ),
    Selective(
        name="failure.aupr_success",
        aspect="calibration",
        better="higher",
        header="failure AUPR success",
        help="failure prediction: average precision with right samples as the positive class",
        spread=0.11,
    ),
    Selective(
        name="failure.fpr95",
        aspect="calibration",
        better="lower",
        header="failure FPR95",
        help="failure prediction: share of errors accepted where 95 % of the right samples are",
        spread=1.15,
    ),
)

METRICS = {metric.name: metric for metric in TABLE}
OWN = {metric.name: metric for metric in TABLE if isinstance(metric, PredictionMetric)}  # of each model
PAIRED = {metric.name: metric for metric in TABLE if isinstance(metric, PairMean)}  # of two models together


def find(name: MetricName) -> PredictionMetric | None:
    """Return the metric of a statistic and a number of bins; None if there is none.

    It computes what the name says under any logit scale, and is called by its statistic.

    Example:
        >>> find(MetricName.parse("ece.equal_mass.20")).header, find(MetricName.parse("ece.equal_mass.0"))
        ('ECE equal mass 20 bins', None)
    """
    metric = OWN.get(name.statistic)
    if not name.part:
        return metric
    if not isinstance(metric, Binned) or not re.fullmatch("[1-9][0-9]{0,2}", name.part) or int(name.part) > MOST_BINS:
        return None
    help_text = metric.help.replace(f"{BINS} ", f"{name.part} ")
    return replace(metric, bins=int(name.part), header=f"{metric.header} {name.part} bins", help=help_text)
