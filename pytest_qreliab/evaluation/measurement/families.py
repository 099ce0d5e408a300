"""The families of metrics: how the values and the bounds of each are computed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from pytest_qreliab.errors import InputError, NotShownError
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.measurement.spectral import SpectralComparison
from pytest_qreliab.metrics import classification, prediction_metrics, registry, robustness
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.definitions import ID, PairedBounds
from pytest_qreliab.metrics.names import NEAR_FAR, PREDICTION, MetricName, SetName
from pytest_qreliab.metrics.ood import STATISTICS
from pytest_qreliab.metrics.prediction_kinds import paired_score
from pytest_qreliab.metrics.prediction_metrics import OWN, PAIRED
from pytest_qreliab.metrics.rank import RANKS
from pytest_qreliab.statistics import influence
from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.influence import Estimate
from pytest_qreliab.statistics.interval import Interval, widen_if_empty


class PairValue(NamedTuple):
    """A metric of two models together: the value of the baseline itself and that of the quantized model."""

    baseline: float
    quantized: float
    problem: str = ""  # why there is none
    missing: bool = False  # whether that is because a model does not show what the metric is measured on


@dataclass(frozen=True)
class MeasuredPair:
    """Two measurements on the same samples, and what is computed of both once."""

    baseline: Measurement
    quantized: Measurement
    ood_changes: dict[tuple[str, str, str], Estimate] = field(default_factory=dict)  # by statistic, score and set
    _samples: dict[str, FloatArray] = field(default_factory=dict)

    @cached_property
    def spectra(self) -> SpectralComparison:
        """The spectral metrics of the pair."""
        return SpectralComparison(self.baseline, self.quantized)

    def predictions(self, *, rescaled: bool = False) -> tuple[Predictions, Predictions]:
        """Return the predictions of both models, which must have some."""
        found = [m.rescaled if rescaled else m.predictions for m in (self.baseline, self.quantized)]
        first, second = (predictions for predictions in found if predictions is not None)
        return first, second

    def samples(self, name: str) -> FloatArray:
        """Return the number per sample, (n,), that a metric of two models together is the mean of."""
        if name not in self._samples:
            self._samples[name] = PAIRED[name].samples(*self.predictions())
        return self._samples[name]


class MetricFamily(Protocol):
    """Metrics that are computed and compared alike."""

    def values(self, measurement: Measurement, wanted: Collection[str] | None) -> dict[str, float]:
        """Return the metrics of one model that its records allow; with `wanted` only those."""
        ...

    def pair_values(self, pair: MeasuredPair, wanted: Iterable[str]) -> dict[str, PairValue]:
        """Return the metrics of two models together: costly ones only if wanted."""
        ...

    def bounds(self, name: MetricName, pair: MeasuredPair) -> PairedBounds:
        """Return the bounds on the change of a metric that both models have, of at least two samples."""
        ...


class PredictionFamily:
    """The metrics of predictions, under the model's own logit scale or a refitted one."""

    def values(self, measurement: Measurement, wanted: Collection[str] | None) -> dict[str, float]:
        """Return the metrics that each model has of its own."""
        found = {}
        for text in [*OWN, *registry.RESCALED_METRICS] if wanted is None else wanted:
            name = MetricName.parse(text)
            metric = prediction_metrics.find(name) if name.family == PREDICTION else None
            predictions = measurement.rescaled if name.rescaled else measurement.predictions
            if metric is not None and predictions is not None:
                found[text] = metric.value(predictions)
        return found

    def pair_values(self, pair: MeasuredPair, wanted: Iterable[str]) -> dict[str, PairValue]:
        """Return the agreement of two models, and what is wanted with a number of bins."""
        found = {}
        if pair.baseline.predictions is not None and pair.quantized.predictions is not None:
            for text, metric in PAIRED.items():
                found[text] = PairValue(metric.at_baseline, float(pair.samples(text).mean()))
        for text in wanted:
            name = MetricName.parse(text)
            if name.family == PREDICTION and name.part:
                found[text] = self._with_bins(text, str(replace(name, part="")), pair)
        return found

    def _with_bins(self, text: str, without: str, pair: MeasuredPair) -> PairValue:
        """Return a metric with a number of bins, whose problems are those of the same without."""
        values, problems = [], []
        for who, measurement in (("baseline", pair.baseline), ("quantized", pair.quantized)):
            values.append(self.values(measurement, [text]).get(text, float("nan")))
            if np.isnan(values[-1]):
                problems.append(f"{who}: {measurement.problems.get(without, 'not measured')}")
        return PairValue(values[0], values[1], "; ".join(problems))

    def bounds(self, name: MetricName, pair: MeasuredPair) -> PairedBounds:
        """Return the bounds as the metric's entry in the table says."""
        if name.statistic in PAIRED:
            return PAIRED[name.statistic].bounds(pair.samples(name.statistic))
        metric = prediction_metrics.find(name)
        assert metric is not None  # a gate has been looked up
        return metric.bounds(*pair.predictions(rescaled=name.rescaled))


class RecallFamily:
    """The recall of each class."""

    def values(self, measurement: Measurement, wanted: Collection[str] | None) -> dict[str, float]:
        """Return the recalls of the classes that have samples."""
        predictions, classes = measurement.predictions, measurement.classes
        if predictions is None:
            return {}
        of_all = classification.recalls(predictions.correct, predictions.labels, predictions.logits.shape[1])
        recalls: dict[str, float] = {}
        for name, recall in zip(classes, of_all[: len(classes)], strict=True):
            if np.isfinite(recall):  # of a class without samples there is none to measure
                recalls.setdefault(f"recall.{name}", float(recall))  # ImageNet has two missiles: the first
        return recalls

    def pair_values(self, pair: MeasuredPair, wanted: Iterable[str]) -> dict[str, PairValue]:
        """Return nothing: each model has recalls of its own."""
        return {}

    def bounds(self, name: MetricName, pair: MeasuredPair) -> PairedBounds:
        """Return Tango's score interval on the samples of the class."""
        before, after = pair.predictions()
        of_class = before.labels == pair.baseline.classes.index(name.part)
        return paired_score((after.correct - before.correct)[of_class])


class OodFamily:
    """The OOD metrics: of each set, and the means over all, the near and the far sets."""

    def values(self, measurement: Measurement, wanted: Collection[str] | None) -> dict[str, float]:
        """Return the metrics of the scores that there are."""
        if wanted is None:
            wanted = [
                str(MetricName(family="ood", statistic=statistic, score=score, part=part))
                for score, sets in measurement.ood_scores.items()
                for part in ("", *NEAR_FAR, *sets)
                for statistic in STATISTICS
            ]
        of_sets: dict[tuple[str, str, str], float] = {}
        found = {}
        for text in wanted:
            name = MetricName.parse(text)
            sets = measurement.ood_sets(name) if name.family == "ood" else []
            if not sets or any(of not in measurement.ood_scores.get(name.score, ()) for of in sets):
                continue
            for of in sets:
                if (key := (name.statistic, name.score, of)) not in of_sets:
                    of_sets[key] = STATISTICS[name.statistic].value(measurement.ranked(name.score, of))
            found[text] = float(np.mean([of_sets[name.statistic, name.score, of] for of in sets]))
        return found

    def pair_values(self, pair: MeasuredPair, wanted: Iterable[str]) -> dict[str, PairValue]:
        """Return nothing: each model has OOD metrics of its own."""
        return {}

    def bounds(self, name: MetricName, pair: MeasuredPair) -> PairedBounds:
        """Return the bounds by influence values, with the in-distribution samples shared by all sets."""
        sets, statistic = pair.baseline.ood_sets(name), STATISTICS[name.statistic]
        change = influence.average([self._change(name, of, pair) for of in sets])
        fewest = min(pair.baseline.samples, *(len(pair.baseline.ood_scores[name.score][of]) for of in sets))
        if fewest < 2:
            return ONE_SAMPLE
        units = {
            of.name: numbers
            for of, numbers in ((SetName.parse(full), units) for full, units in pair.baseline.units.items())
            if of.category == "ood"
        }
        change = change.clustered(units)
        if statistic.smooth:
            change = change.pad()
        return PairedBounds(widen_if_empty(change.interval, fewest), statistic.method)

    @staticmethod
    def _change(name: MetricName, of: str, pair: MeasuredPair) -> Estimate:
        """Return the change on one set, which means over several sets use again."""
        key = name.statistic, name.score, of
        if key not in pair.ood_changes:
            statistic, estimates = STATISTICS[name.statistic], []
            for measurement in (pair.baseline, pair.quantized):
                ranked = measurement.ranked(name.score, of)
                influences = statistic.influences(ranked)
                estimates.append(Estimate(statistic.value(ranked), {ID: influences.of_id, of: influences.of_ood}))
            pair.ood_changes[key] = estimates[1] - estimates[0]
        return pair.ood_changes[key]


class RobustnessFamily:
    """The metrics on shifted, corrupted and spurious image sets."""

    def values(self, measurement: Measurement, wanted: Collection[str] | None) -> dict[str, float]:
        """Return the metrics that the labelled sets allow."""
        return robustness.values(measurement.labelled, wanted)

    def pair_values(self, pair: MeasuredPair, wanted: Iterable[str]) -> dict[str, PairValue]:
        """Return the additional vulnerability by quantization, if there are sets to see it on."""
        found = robustness.vulnerability(pair.baseline.labelled, pair.quantized.labelled)
        return {} if found is None else {robustness.VULNERABILITY: PairValue(0.0, found)}

    def bounds(self, name: MetricName, pair: MeasuredPair) -> PairedBounds:
        """Return the bounds on a mean over sets, or on a ratio."""
        return robustness.bounds(str(name), pair.baseline.labelled, pair.quantized.labelled, pair.baseline.units)


class SpectralFamily:
    """The spectral metrics. Most need two measurements together."""

    def values(self, measurement: Measurement, wanted: Collection[str] | None) -> dict[str, float]:
        """Return the metrics of the patch map and of the features of one model."""
        found = {}
        if measurement.high_band is not None:
            found["spectral.high_band_energy"] = float(measurement.high_band.mean())
        for statistic in RANKS if "" in measurement.features else ():
            name = f"spectral.{statistic}"
            if wanted is None or name in wanted:
                found[name] = float(getattr(measurement.spectrum(""), statistic))
        return found

    def pair_values(self, pair: MeasuredPair, wanted: Iterable[str]) -> dict[str, PairValue]:
        """Return the wanted metrics, but for those of weights, which no measurement holds."""
        found = {}
        for name in wanted:
            metric = registry.lookup(name)
            if metric.aspect != "spectrum" or "weights" in metric.needs:
                continue
            try:
                found[name] = PairValue(*pair.spectra.values(name))
            except InputError as error:
                missing = isinstance(error, NotShownError)
                found[name] = PairValue(float("nan"), float("nan"), str(error), missing)
        return found

    def bounds(self, name: MetricName, pair: MeasuredPair) -> PairedBounds:
        """Return the bounds as the statistic gives them."""
        return pair.spectra.bounds(str(name))


# One sample shows no variation.
ONE_SAMPLE = PairedBounds(lambda alpha: Interval(float("-inf"), float("inf")), "one sample")

_ROBUSTNESS = RobustnessFamily()
# By the family of a metric's name.
BY_NAME: dict[str, MetricFamily] = {
    "prediction": PredictionFamily(),
    "recall": RecallFamily(),
    "spectral": SpectralFamily(),
    "shift": _ROBUSTNESS,
    "corruption": _ROBUSTNESS,
    "spurious": _ROBUSTNESS,
    "ood": OodFamily(),
}
FAMILIES = tuple(dict.fromkeys(BY_NAME.values()))
