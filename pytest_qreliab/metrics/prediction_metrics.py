"""The table of the metrics of predictions, with how the value and the bounds of each are computed.

A new metric is one entry. Plans read the table too, so that nothing heavy is imported before a value is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_qreliab.metrics.definitions import ID, Direction, Metric, PairedBounds

if TYPE_CHECKING:
    from pytest_qreliab.metrics.classification import Predictions
    from pytest_qreliab.statistics.arrays import FloatArray


@dataclass(frozen=True, kw_only=True)
class PredictionMetric(Metric):
    """The base of the metrics that each model has of its own."""

    def value(self, predictions: Predictions) -> float:
        """Return the metric of one model."""
        raise NotImplementedError

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return the bounds on its change between two models, for at least two samples."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SampleMean(PredictionMetric):
    """The mean of one number per sample, (n,)."""

    samples: Callable[[Predictions], FloatArray]

    def value(self, predictions: Predictions) -> float:
        """Return the mean."""
        return float(self.samples(predictions).mean())

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return the bounds of paired differences."""
        return _paired_t(self.samples(quantized) - self.samples(baseline))


@dataclass(frozen=True, kw_only=True)
class MeanGap(PredictionMetric):
    """The difference of the means of two numbers per sample."""

    first: Callable[[Predictions], FloatArray]
    second: Callable[[Predictions], FloatArray]

    def value(self, predictions: Predictions) -> float:
        """Return the first mean less the second."""
        return float(self.first(predictions).mean() - self.second(predictions).mean())

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return the bounds of paired differences."""
        first, second = (samples(quantized) - samples(baseline) for samples in (self.first, self.second))
        return _paired_t(first - second)


@dataclass(frozen=True, kw_only=True)
class HitRate(SampleMean):
    """The share of samples that are hits, each 1 or 0."""

    proportion: bool = True

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return Tango's score interval."""
        return paired_score(self.samples(quantized) - self.samples(baseline))


class Accuracy(HitRate):
    """The share of samples that are classified rightly."""

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return Tango's score interval, with McNemar's test in the words of the method."""
        from pytest_qreliab.statistics import proportions

        change = self.samples(quantized) - self.samples(baseline)
        gained, lost = int((change > 0).sum()), int((change < 0).sum())
        p = proportions.mcnemar(gained, lost)
        return PairedBounds(
            partial(proportions.score_interval, gained, lost, len(change)),
            f"paired score; McNemar p = {p:.2g}, {lost} lost, {gained} gained",
        )


class BalancedAccuracy(HitRate):
    """The share of hits under weights that make every class count alike."""

    def value(self, predictions: Predictions) -> float:
        """Return the mean over classes of the recall."""
        from pytest_qreliab.metrics import classification

        return classification.balanced_accuracy(self.samples(predictions), predictions.labels)

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return Tango's score interval of the weighted changes."""
        from pytest_qreliab.metrics import classification

        change = self.samples(quantized) - self.samples(baseline)
        return paired_score(change, classification.class_weights(baseline.labels))


@dataclass(frozen=True, kw_only=True)
class RiskCoverage(PredictionMetric):
    """The area under the risk-coverage curve."""

    excess: bool  # above the least that the accuracy allows

    def value(self, predictions: Predictions) -> float:
        """Return the area, or its excess."""
        from pytest_qreliab.metrics import selective

        area = selective.excess_aurc if self.excess else selective.aurc
        return area(predictions.confidence, predictions.correct)

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return the bounds by influence values."""
        from pytest_qreliab.metrics import selective
        from pytest_qreliab.statistics.influence import Estimate
        from pytest_qreliab.statistics.interval import widen_if_empty

        before, after = (
            Estimate(self.value(p), {ID: selective.aurc_influence(p.confidence, p.correct)[self.excess]})
            for p in (baseline, quantized)
        )
        return PairedBounds(widen_if_empty((after - before).pad().interval, len(baseline)), "paired, influence values")


class Binned(PredictionMetric):
    """A metric of bins of probabilities, which `calibration.BINNED` computes."""

    def value(self, predictions: Predictions) -> float:
        """Return the metric from the sums over all samples, computed once for all metrics of its table."""
        from pytest_qreliab.metrics import calibration

        (table,) = calibration.build_tables(predictions, [self.name])
        values = _remembered(predictions, (table,), lambda: table.metrics_from_sums(table.sums()))
        return float(values[self.name][0])

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return the bounds by random halves of the samples, drawn once for all metrics of its table."""
        from pytest_qreliab.metrics import calibration
        from pytest_qreliab.statistics.interval import normal_interval, widen_if_empty

        tables = tuple(table for p in (baseline, quantized) for table in calibration.build_tables(p, [self.name]))
        errors = _remembered(quantized, tables, lambda: calibration.change_errors([baseline], [quantized], [self.name]))
        change = self.value(quantized) - self.value(baseline)
        bounds = widen_if_empty(partial(normal_interval, change, errors[self.name]), len(baseline))
        return PairedBounds(bounds, "paired, resampled halves")


@dataclass(frozen=True, kw_only=True)
class PairMean(Metric):
    """The mean of one number per sample of two models together, (n,)."""

    samples: Callable[[Predictions, Predictions], FloatArray]
    at_baseline: float = 0.0  # the value of two equal models
    distance: bool = True

    def bounds(self, samples: FloatArray) -> PairedBounds:
        """Return the bounds on a mean that is at least 0."""
        from pytest_qreliab.statistics import influence

        return PairedBounds(influence.paired_mean(samples, ID).pad(both_sides=False).interval, "paired t")


class PairShare(PairMean):
    """The share of the samples for which something holds of two models together."""

    def bounds(self, samples: FloatArray) -> PairedBounds:
        """Return Wilson's score interval."""
        from pytest_qreliab.statistics import proportions

        hits, shift = int(samples.sum()), 0.0 - self.at_baseline
        return PairedBounds(partial(proportions.wilson_interval, hits, len(samples), shift=shift), "Wilson score")


def paired_score(change: FloatArray, weights: FloatArray | None = None) -> PairedBounds:
    """Return Tango's interval on the mean, or weighted mean, of changes in {-1, 0, 1}, (n,).

    Example:
        >>> import numpy as np
        >>> low, high = paired_score(np.array([1.0, 0.0, 0.0, -1.0])).bounds(0.05)
        >>> round(low + high, 6)  # as many samples gained as lost
        0.0
    """
    from pytest_qreliab.statistics import proportions

    return PairedBounds(proportions.paired_score(change, weights), "paired score")


def _paired_t(differences: FloatArray) -> PairedBounds:
    from pytest_qreliab.statistics import influence

    return PairedBounds(influence.paired_mean(differences, ID).pad().interval, "paired t")


def _remembered(predictions: Predictions, key: Any, compute: Callable[[], Any]) -> Any:
    """Return what was computed of these predictions, now or before."""
    if key not in predictions.memo:
        predictions.memo[key] = compute()
    return predictions.memo[key]


def _kl(baseline: Predictions, quantized: Predictions) -> FloatArray:
    from pytest_qreliab.metrics import classification

    return classification.kl_divergence(baseline, quantized)


def _binned(name: str, header: str, text: str, spread: float | None = None, *, better: Direction = "lower") -> Binned:
    return Binned(name=name, aspect="calibration", better=better, header=header, help=text, spread=spread)


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
        "what the Brier score owes to miscalibration: squared gaps of 15 bins, summed over classes",
        0.12,
    ),
    _binned(
        "brier.resolution",
        "Brier resolution",
        "what the Brier score gains by telling samples apart: 15 bins, summed over classes",
        0.14,
        better="higher",
    ),
    _binned("ece", "ECE", "expected calibration error, 15 equal-width bins (lo, hi]", 0.32),
    _binned("ece.equal_mass", "ECE equal mass", "ECE in 15 bins of as many samples each", 0.31),
    _binned(
        "ece.debiased",
        "ECE debiased",
        "ECE less what chance adds to it: 0 on average when perfectly calibrated",
        0.44,
    ),
    _binned("ece.classwise", "ECE classwise", "mean over classes of the ECE of that class", 0.05),
    _binned("mce", "MCE", "largest gap of confidence and accuracy in a bin"),
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
    RiskCoverage(
        name="aurc",
        aspect="calibration",
        better="lower",
        header="AURC",
        help="area under the risk-coverage curve",
        spread=0.09,
        excess=False,
    ),
    RiskCoverage(
        name="eaurc",
        aspect="calibration",
        better="lower",
        header="E-AURC",
        help="AURC above the least that the accuracy allows",
        spread=0.11,
        excess=True,
    ),
)

METRICS = {metric.name: metric for metric in TABLE}
OWN = {metric.name: metric for metric in TABLE if isinstance(metric, PredictionMetric)}  # of each model
PAIRED = {metric.name: metric for metric in TABLE if isinstance(metric, PairMean)}  # of two models together
