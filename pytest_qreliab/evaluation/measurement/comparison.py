"""The change of each metric between two measurements on the same samples, and its bounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pytest_qreliab.evaluation.measurement.families import BY_NAME, FAMILIES, ONE_SAMPLE, MeasuredPair
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.statistics.interval import Bounds


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric in both models."""

    metric: str
    baseline: float
    quantized: float
    # The bounds on quantized - baseline at a one-sided error probability; None: none are computed.
    bounds: Bounds | None = None
    method: str = ""  # of the bounds, in words
    problem: str = ""  # why a value is not a number; empty if both are
    missing: bool = False  # whether that is because a model does not show what the metric is measured on

    @classmethod
    def not_shown(cls, metric: str, problem: str) -> Change:
        """Return the change of a metric that a model does not show."""
        nan = float("nan")
        return cls(metric=metric, baseline=nan, quantized=nan, method=NO_INTERVAL[1], problem=problem, missing=True)

    @property
    def delta(self) -> float:
        """Return quantized - baseline."""
        return self.quantized - self.baseline


def compare(
    baseline: Measurement,
    quantized: Measurement,
    wanted: Collection[str],
    weights: Mapping[str, float] = MappingProxyType({}),
    quantized_weights: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Change]:
    """Return the change of every metric that either measurement holds, and of those of the weights.

    Args:
        baseline: The measurement in full precision.
        quantized: The measurement of the quantized model on the same samples.
        wanted: The metrics that get bounds. Spectral metrics of two models together are computed only if wanted.
        weights: The metrics of the weights in full precision.
        quantized_weights: Those of the quantized weights.
    """
    pair = MeasuredPair(baseline, quantized)
    before, after = {**baseline.values, **weights}, {**quantized.values, **quantized_weights}
    problems = _problems(baseline, quantized)
    costly = sorted(name for name in wanted if name not in problems)
    missing: set[str] = set()
    for family in FAMILIES:
        for name, value in family.pair_values(pair, costly).items():
            before[name], after[name] = value.baseline, value.quantized
            problems.update({name: value.problem} if value.problem else {})
            missing.update({name} if value.missing else ())
    names = list(dict.fromkeys([*before, *after]))
    for who, values in (("baseline", before), ("quantized", after)):
        for name in names:
            if name not in values:
                missing.update({name} if name not in problems else ())
                problems.setdefault(name, f"{who}: {_why_missing(name)}")
    nan, changes = float("nan"), {}
    for name in names:
        bounds, method = _bounds(pair, name) if name in wanted and name not in problems else NO_INTERVAL
        changes[name] = Change(
            metric=name,
            baseline=before.get(name, nan),
            quantized=after.get(name, nan),
            bounds=bounds,
            method=method,
            problem=problems.get(name, ""),
            missing=name in missing,
        )
    return changes


NO_INTERVAL = (None, "no interval")
NO_LOCAL = "the image tower shows no local features"


def _bounds(pair: MeasuredPair, name: str) -> tuple[Bounds | None, str]:
    """Return the bounds of one metric's change, and their method."""
    if registry.lookup(name).spread is None:
        return NO_INTERVAL
    if pair.baseline.samples < 2:
        return ONE_SAMPLE
    parsed = MetricName.parse(name)
    return BY_NAME[parsed.family].bounds(parsed, pair)


def _why_missing(name: str) -> str:
    """Say what a model does not show that a metric is measured on."""
    return NO_LOCAL if "local" in registry.lookup(name).needs else "not measured"


def _problems(baseline: Measurement, quantized: Measurement) -> dict[str, str]:
    """Return why metrics have no value, by metric, with the models that have none."""
    problems: dict[str, str] = {}
    for who, measurement in (("baseline", baseline), ("quantized", quantized)):
        for name, problem in measurement.problems.items():
            problems[name] = "; ".join(filter(None, [problems.get(name), f"{who}: {problem}"]))
    return problems
