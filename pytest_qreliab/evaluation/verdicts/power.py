"""The power of the gates of a plan, with the samples that it has, before anything has run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.metrics import registry, set_metrics
from pytest_qreliab.metrics.definitions import WITH_GRATINGS, Metric
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.statistics import power

MOST_SAMPLES = 10**9


@dataclass(frozen=True, kw_only=True)
class Underpowered:
    """A gate that would leave a harmless case inconclusive more than one time in five."""

    case: Case
    gate: Gate
    detectable: float  # the least harm that the gate would show in four cases of five
    samples: float  # the number of samples that the error falls with
    times: float  # with that many times the samples `detectable` would be no more than the limit


def find_underpowered(plan: Plan) -> list[Underpowered]:
    """Return the gates whose minimum detectable effect is above their limit.

    The spreads of metrics come from their tables. Gates without an interval are left out. So are gates on a share of
    the baseline's value, which is not known yet.

    Args:
        plan: The plan, before anything has run.

    Returns:
        The underpowered gates, in the order of cases and gates.
    """
    underpowered = []
    for case, gates in plan.gates.items():
        for gate in gates:
            metric = registry.lookup(gate.metric)
            if metric.spread is None or gate.limit in ("min", "max", "max_relative_change"):
                continue
            data, alpha = plan.data[case.benchmark], plan.error_probability(case)
            samples, spread = effective_samples(gate.metric, data), _spread(metric, data)
            detectable = _detectable(spread, samples, alpha, metric.proportion)
            if not detectable <= gate.value:
                times = _samples_needed(spread, gate.value, alpha, metric.proportion) / samples
                underpowered.append(
                    Underpowered(case=case, gate=gate, detectable=detectable, samples=samples, times=times)
                )
    return underpowered


def effective_samples(metric: str, data: Dataset) -> float:
    """Return the number of samples whose square root a metric's error falls with.

    For a mean over k sets of other images it is 1 / (sum(1 / n_k) / k^2). The error of an OOD metric comes from the
    n in-distribution samples as well: 1 / (1 / n + sum(1 / n_k) / k^2).

    Args:
        metric: The name of a metric.
        data: The data of a benchmark.

    Returns:
        The number of samples, 0 if the data have none for the metric.
    """
    n = len(data.in_distribution)
    if "gratings" in registry.lookup(metric).needs:
        return float(min(n, WITH_GRATINGS))
    name = MetricName.parse(metric)
    if name.family == "recall":
        if name.part not in data.classes:
            return 0.0
        return float(np.sum(data.in_distribution.known_labels == data.classes.index(name.part)))
    sizes = [len(data.sets[image_set]) for image_set in registry.image_sets(metric, data.sets)]
    if not sizes:
        return 0.0
    if name.family == "corruption":  # the same images in every cell
        return float(sizes[0])
    variance = sum(1 / size for size in sizes) / len(sizes) ** 2
    return 1 / (1 / n + variance) if name.family == "ood" else 1 / variance


def _spread(metric: Metric, data: Dataset) -> float:
    """Return the spread of a metric on these data: the fewer cells a grid has, the larger it is."""
    name, sets = MetricName.parse(metric.name), registry.image_sets(metric.name, data.sets)
    if name.family in set_metrics.CATEGORIES and sets:
        return set_metrics.spread_over(name, len(sets))
    return metric.spread or 0.0


def _detectable(spread: float, samples: float, alpha: float, proportion: bool) -> float:
    if samples < 1:
        return float("inf")
    if proportion:
        return power.minimum_detectable_drop(spread**2, int(samples), alpha)
    return power.minimum_detectable(spread, int(samples), alpha)


def _samples_needed(spread: float, effect: float, alpha: float, proportion: bool) -> float:
    """Return the least number of samples at which an effect is detectable, infinite for an effect of 0."""
    if effect <= 0:
        return float("inf")
    if not proportion:
        return power.samples_needed(spread, effect, alpha)
    return _least(lambda samples: _detectable(spread, samples, alpha, proportion) <= effect)


def _least(holds: Callable[[int], bool]) -> float:
    """Return the least number at which a condition holds that, once true, stays so; infinite beyond 10^9."""
    high = 1
    while not holds(high):
        high *= 2
        if high > MOST_SAMPLES:
            return float("inf")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
