"""From two measurements on the same samples to the change of each metric, and how sure it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.measurement.measurement import ID, Measurement
from pytest_qreliab.evaluation.measurement.spectral import SpectralComparison, is_spectral
from pytest_qreliab.metrics import calibration, classification, ood, registry, robustness
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.statistics import influence, proportions
from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.influence import Estimate
from pytest_qreliab.statistics.interval import Bounds, Interval, normal_interval, widened

# The influence on them is a slope that is measured over many samples: that of two more is in it.
NOT_SMOOTH = ("fpr95", "fpr95_out")


@dataclass(frozen=True)
class Change:
    """One metric in both models. `bounds` gives, at a one-sided error probability, the bounds on quantized - baseline;
    None where none are computed. `problem` says why a value is not a number, and is empty when both are.
    """

    metric: str
    baseline: float
    quantized: float
    bounds: Bounds | None
    method: str
    problem: str

    @property
    def delta(self) -> float:
        return self.quantized - self.baseline


def compare(
    baseline: Measurement,
    quantized: Measurement,
    wanted: Collection[str],
    weights: Mapping[str, float] = MappingProxyType({}),
    quantized_weights: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Change]:
    """The change of every metric that either measurement holds, and of those of the weights; with bounds for those in
    `wanted`. Of the spectral metrics of two models together only those in `wanted` are computed."""
    divergence = None
    before, after = {**baseline.values, **weights}, {**quantized.values, **quantized_weights}
    if baseline.predictions is not None and quantized.predictions is not None:
        divergence = classification.kl_divergence(baseline.predictions, quantized.predictions)
        before.update({"agreement": 1.0, "flips.lost": 0.0, "flips.gained": 0.0, "kl": 0.0})
        after.update(_of_pair(baseline.predictions, quantized.predictions), kl=float(divergence.mean()))
    if (vulnerability := robustness.vulnerability(baseline.labelled, quantized.labelled)) is not None:
        before[robustness.VULNERABILITY], after[robustness.VULNERABILITY] = 0.0, vulnerability
    problems: dict[str, str] = {}
    for who, measurement in (("baseline", baseline), ("quantized", quantized)):
        for name, problem in measurement.problems.items():
            problems[name] = "; ".join(filter(None, [problems.get(name), f"{who}: {problem}"]))
    spectra = SpectralComparison(baseline, quantized)
    for name in sorted(name for name in wanted if is_spectral(name) and name not in problems):
        before[name], after[name], problem = _of_spectra(spectra, name)
        problems.update({name: problem} if problem else {})
    names = list(dict.fromkeys([*before, *after]))
    for who, values in (("baseline", before), ("quantized", after)):
        for name in names:
            if name not in values:
                problems.setdefault(name, f"{who}: not measured")
    possible = {name for name in names if name in wanted and name not in problems}
    sure = _Bounds(baseline, quantized, spectra, divergence, possible)
    changes = {}
    for name in names:
        bounds, method = sure.find(name)
        nan = float("nan")
        changes[name] = Change(
            name, before.get(name, nan), after.get(name, nan), bounds, method, problems.get(name, "")
        )
    return changes


def _of_spectra(spectra: SpectralComparison, name: str) -> tuple[float, float, str]:
    """The value in both models, and why there is none."""
    try:
        return *spectra.values(name), ""
    except InputError as error:
        return float("nan"), float("nan"), str(error)


def _of_pair(b: Predictions, q: Predictions) -> dict[str, float]:
    """The metrics that are of two models together."""
    return {
        "agreement": float((b.predicted == q.predicted).mean()),
        "flips.lost": float((b.correct > q.correct).mean()),
        "flips.gained": float((b.correct < q.correct).mean()),
    }


class _Bounds:
    """Finds the bounds of the wanted metrics' changes; those that need resampling together."""

    def __init__(
        self,
        baseline: Measurement,
        quantized: Measurement,
        spectra: SpectralComparison,
        divergence: FloatArray | None,
        wanted: Collection[str],
    ) -> None:
        self._baseline, self._quantized, self._spectra, self._wanted = baseline, quantized, spectra, wanted
        self._divergence = divergence
        self._errors: dict[str, float] = {}
        self._ood_changes: dict[tuple[str, str, str], Estimate] = {}
        for prefix, b, q in (
            ("", baseline.predictions, quantized.predictions),
            (registry.RESCALED, baseline.rescaled, quantized.rescaled),
        ):
            names = {name.removeprefix(prefix) for name in wanted if name.startswith(prefix)}
            if b is not None and q is not None and (names := names & calibration.BINNED.keys()):
                errors = calibration.errors_of_change([b], [q], names)
                self._errors.update({prefix + name: error for name, error in errors.items()})

    def find(self, name: str) -> tuple[Bounds | None, str]:
        """The bounds of one metric's change, and by what method."""
        baseline, quantized = self._baseline, self._quantized
        if name not in self._wanted or registry.lookup(name).spread is None:
            return None, "no interval"
        n = baseline.samples
        if n < 2:
            return _unbounded, "one sample"
        if name in self._errors:
            delta = quantized.values[name] - baseline.values[name]
            return widened(partial(normal_interval, delta, self._errors[name]), n), "paired, resampled halves"
        if name.startswith("ood."):
            return self._ood(name)
        if registry.lookup(name).aspect == "robustness":
            return robustness.bounds(name, baseline.labelled, quantized.labelled)
        if is_spectral(name):
            return self._spectra.bounds(name)
        if name == "kl":
            assert self._divergence is not None
            return influence.paired_mean(self._divergence, ID).padded(both_sides=False).interval, "paired t"
        rescaled = name.startswith(registry.RESCALED)
        b, q = ((m.rescaled if rescaled else m.predictions) for m in (baseline, quantized))
        assert b is not None
        assert q is not None
        return _of_predictions(name.removeprefix(registry.RESCALED), b, q, baseline.classes)

    def _ood(self, name: str) -> tuple[Bounds, str]:
        statistic, score, sets = self._baseline.ood_sets(name)
        change = influence.average([self._ood_change(statistic, score, of) for of in sets])
        fewest = min(self._baseline.samples, *(len(self._baseline.ood_scores[score][of]) for of in sets))
        if fewest < 2:
            return _unbounded, "one sample"
        if statistic not in NOT_SMOOTH:
            change = change.padded()
        method = "paired DeLong" if statistic == "auroc" else "paired, influence values"
        return widened(change.interval, fewest), method

    def _ood_change(self, statistic: str, score: str, name: str) -> Estimate:
        """The change of one OOD metric on one set, which means over several sets use again."""
        key = statistic, score, name
        if key not in self._ood_changes:
            before, after = (
                _ood_estimate(statistic, m.ranked(score, name), name) for m in (self._baseline, self._quantized)
            )
            self._ood_changes[key] = after - before
        return self._ood_changes[key]


def _of_predictions(name: str, b: Predictions, q: Predictions, classes: Sequence[str]) -> tuple[Bounds, str]:
    n = len(b)
    change: FloatArray = q.correct - b.correct
    if name == "accuracy":
        gained, lost = int((change > 0).sum()), int((change < 0).sum())
        p = proportions.mcnemar(gained, lost)
        return partial(proportions.score_interval, gained, lost, n), (
            f"paired score; McNemar p = {p:.2g}, {lost} lost, {gained} gained"
        )
    if name == "top5_accuracy":
        return _score(q.in_top5 - b.in_top5)
    if name == "balanced_accuracy":
        return _score(change, classification.class_weights(b.labels))
    if name.startswith(registry.RECALL):
        label = classes.index(name.removeprefix(registry.RECALL))
        return _score(change[b.labels == label])
    if name in ("agreement", "flips.lost", "flips.gained"):
        hits = {"agreement": b.predicted == q.predicted, "flips.lost": change < 0, "flips.gained": change > 0}[name]
        shift = -1.0 if name == "agreement" else 0.0
        return partial(proportions.wilson_interval, int(hits.sum()), n, shift=shift), "Wilson score"
    if name in ("aurc", "eaurc"):
        index = ("aurc", "eaurc").index(name)
        function = (calibration.aurc, calibration.excess_aurc)[index]
        before, after = (
            Estimate(
                function(m.confidence, m.correct), {ID: calibration.aurc_influence(m.confidence, m.correct)[index]}
            )
            for m in (b, q)
        )
        return widened((after - before).padded().interval, n), "paired, influence values"
    differences = {
        "nll": lambda: q.nll - b.nll,
        "brier": lambda: q.brier - b.brier,
        "confidence_gap": lambda: (q.confidence - b.confidence) - change,
    }[name]()
    return influence.paired_mean(differences, ID).padded().interval, "paired t"


def _unbounded(alpha: float) -> Interval:
    """What one sample, which shows no variation, says."""
    return Interval(float("-inf"), float("inf"))


def _score(change: FloatArray, weights: FloatArray | None = None) -> tuple[Bounds, str]:
    """Tango's interval on the weighted mean of changes in {-1, 0, 1}."""
    return proportions.paired_score(change, weights), "paired score"


def _ood_estimate(statistic: str, ranked: ood.SortedScores, name: str) -> Estimate:
    """One OOD metric of one set, with the influence of both groups of samples."""
    value, influences = ood.STATISTICS[statistic]
    of_id, of_ood = influences(ranked)
    return Estimate(value(ranked), {ID: of_id, name: of_ood})
