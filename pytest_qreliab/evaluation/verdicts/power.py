"""What the gates of a plan can see with the samples there are, told before anything has run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.data.dataset import CORRUPTION, Dataset
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.metrics import registry
from pytest_qreliab.statistics import power

# Metrics that only samples with another outcome move: their spread is the root of the share of those.
PROPORTIONS = ("accuracy", "top5_accuracy", "balanced_accuracy")
MOST_SAMPLES = 10**9


@dataclass(frozen=True)
class Underpowered:
    """A gate that would leave a harmless case inconclusive more than one time in five, on so many `samples`.

    `detectable` is the least harm that it would show in four cases of five; with `times` as many samples that would
    be no more than its limit.
    """

    case: Case
    gate: Gate
    detectable: float
    samples: float
    times: float


def find_underpowered(plan: Plan) -> list[Underpowered]:
    """The gates whose minimum detectable effect is above their limit, going by the spreads in the registry.

    Gates without an interval, and those on a share of the baseline's value, which is not known yet, are left out.
    """
    found = []
    for case, gates in plan.gates.items():
        for gate in gates:
            metric = registry.lookup(gate.metric)
            if metric.spread is None or gate.limit in ("min", "max", "max_relative_change"):
                continue
            n, alpha = effective_samples(gate.metric, plan.data[case.benchmark]), plan.alpha(case)
            detectable = _detectable(metric, n, alpha)
            if not detectable <= gate.value:
                found.append(Underpowered(case, gate, detectable, n, _needed(metric, gate.value, alpha) / n))
    return found


def effective_samples(metric: str, data: Dataset) -> float:
    """The number of samples that a metric's error falls with the root of.

    Of a mean over k sets of other images it is 1 / (sum(1 / n_k) / k^2); of an OOD metric, whose error comes from the
    in-distribution samples as well, 1 / (1 / n + sum(1 / n_k) / k^2).
    """
    n = len(data.in_distribution)
    if "gratings" in registry.lookup(metric).needs:
        return float(min(n, registry.WITH_GRATINGS))
    if metric.startswith(registry.RECALL):
        assert data.in_distribution.labels is not None
        name = metric.removeprefix(registry.RECALL)
        return float(np.sum(data.in_distribution.labels == data.classes.index(name))) if name in data.classes else 0.0
    sizes = [len(data.sets[name]) for name in registry.image_sets(metric, data.sets)]
    if not sizes:
        return 0.0
    if metric.startswith(CORRUPTION):  # the same images in every cell
        return float(sizes[0])
    of_sets = sum(1 / size for size in sizes) / len(sizes) ** 2
    return 1 / (1 / n + of_sets) if metric.startswith("ood.") else 1 / of_sets


def _detectable(metric: registry.Metric, n: float, alpha: float) -> float:
    assert metric.spread is not None
    if n < 1:
        return float("inf")
    if _is_proportion(metric):
        return power.minimum_detectable_drop(metric.spread**2, int(n), alpha)
    return power.minimum_detectable(metric.spread, int(n), alpha)


def _needed(metric: registry.Metric, effect: float, alpha: float) -> float:
    """The least number of samples at which `effect` is detectable; infinite for an effect of nothing."""
    assert metric.spread is not None
    if effect <= 0:
        return float("inf")
    if not _is_proportion(metric):
        return power.samples_needed(metric.spread, effect, alpha)
    return _least(lambda n: _detectable(metric, n, alpha) <= effect)


def _least(holds: Callable[[int], bool]) -> float:
    """The least n at which a condition holds that, once true, stays so; infinite beyond 10^9."""
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


def _is_proportion(metric: registry.Metric) -> bool:
    return metric.name in PROPORTIONS or metric.name.startswith((registry.RECALL, registry.SPURIOUS_ACCURACY))
