"""The kinds of metrics of predictions: how the value and the bounds of each are computed.

Plans read the table of these metrics, so that nothing heavy is imported before a value is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_qreliab.metrics.definitions import BINS, ID, Metric, PairedBounds

if TYPE_CHECKING:
    from pytest_qreliab.metrics.classification import Predictions
    from pytest_qreliab.statistics.arrays import FloatArray


@dataclass(frozen=True, kw_only=True)
class PredictionMetric(Metric):
    """The base of the metrics that each model has of its own."""

    def value(self, predictions: Predictions) -> float:
        """Return the metric of one model; NaN if there is a problem."""
        raise NotImplementedError

    def problem(self, predictions: Predictions) -> str:
        """Return why these predictions do not define the metric; empty if they do."""
        return ""

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


class Selective(PredictionMetric):
    """A metric of how confidence tells right from wrong, which `selective.STATISTICS` computes."""

    def value(self, predictions: Predictions) -> float:
        """Return the metric."""
        from pytest_qreliab.metrics import selective

        if self.problem(predictions):
            return float("nan")
        return selective.STATISTICS[self.name].value(predictions.confidence, predictions.correct)

    def problem(self, predictions: Predictions) -> str:
        """Return that all samples are right, or all wrong, if the metric compares them."""
        from pytest_qreliab.metrics import selective

        if not selective.STATISTICS[self.name].of_both or 0 < predictions.correct.mean() < 1:
            return ""
        return f"no sample is classified {'wrongly' if predictions.correct.all() else 'rightly'}"

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return the bounds by influence values, or the whole range if too few samples are wrong, or right."""
        from pytest_qreliab.metrics import selective
        from pytest_qreliab.statistics.influence import Estimate
        from pytest_qreliab.statistics.interval import Interval, widen_if_empty

        statistic, estimates, fewest = selective.STATISTICS[self.name], [], len(baseline)
        if statistic.of_both:
            fewest = int(min(min(p.correct.sum(), (1 - p.correct).sum()) for p in (baseline, quantized)))
            if 0 < fewest < selective.FEWEST:
                text = f"the whole range, as fewer than {selective.FEWEST} samples are wrong, or right"
                return PairedBounds(lambda alpha: Interval(-1.0, 1.0), text)
        for p in (baseline, quantized):
            influence = 0 * p.correct if self.problem(p) else statistic.influence(p.confidence, p.correct)
            estimates.append(Estimate(self.value(p), {ID: influence}))
        change = estimates[1] - estimates[0]
        if statistic.smooth:
            change = change.pad()
        return PairedBounds(widen_if_empty(change.interval, fewest), "paired, influence values")


@dataclass(frozen=True, kw_only=True)
class Binned(PredictionMetric):
    """A metric of bins of probabilities, which `calibration.BINNED` computes."""

    bins: int = BINS

    def value(self, predictions: Predictions) -> float:
        """Return the metric from the sums over all samples, computed once for all metrics of its table."""
        from pytest_qreliab.metrics import calibration

        (table,) = calibration.build_tables(predictions, [self.name], self.bins)
        values = _remembered(predictions, (table,), lambda: table.metrics_from_sums(table.sums()))
        return float(values[self.name][0])

    def bounds(self, baseline: Predictions, quantized: Predictions) -> PairedBounds:
        """Return the bounds by random halves of the samples, drawn once for all metrics of its table."""
        from pytest_qreliab.metrics import calibration
        from pytest_qreliab.statistics.interval import normal_interval, widen_if_empty

        names, models = [self.name], (baseline, quantized)
        tables = tuple(table for p in models for table in calibration.build_tables(p, names, self.bins))
        errors = _remembered(
            quantized, tables, lambda: calibration.change_errors([baseline], [quantized], names, self.bins)
        )
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
