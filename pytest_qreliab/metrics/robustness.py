"""Robustness: metrics of further labelled image sets, which are shifted, corrupted, or have a spurious cue.

The ratios are `Estimate`s, so that each has an interval; positive is worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from pytest_qreliab.metrics import calibration, registry
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.statistics import influence, proportions
from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.influence import Estimate
from pytest_qreliab.statistics.interval import Interval, normal_interval, widened

Sets = Mapping[str, Predictions]  # by the full name of the set
VULNERABILITY = "spurious.vulnerability"
GRID = "corruption"  # the group whose samples are images, each in every cell


def relative_drop(reference: Estimate, other: Estimate) -> Estimate:
    """(reference - other) / reference: the study's d(D) for full precision and quantized accuracy on D.

    The spurious gap is of the same form, within one model. Over an accuracy of 0 it is NaN, and so are its bounds.
    """
    return (reference - other) / reference


class SpuriousAccuracies(NamedTuple):
    """One model's accuracies where the background is the common one, and where it is not (CounterAnimal)."""

    common: Estimate
    counter: Estimate


def spurious_gap(model: SpuriousAccuracies) -> Estimate:
    """RSG(m) = (A(m, common) - A(m, counter)) / A(m, common), the study's relative spurious gap."""
    return relative_drop(model.common, model.counter)


def spurious_gap_rise(baseline: SpuriousAccuracies, quantized: SpuriousAccuracies) -> Estimate:
    """dRSG = RSG(quantized) - RSG(baseline)."""
    return spurious_gap(quantized) - spurious_gap(baseline)


def additional_vulnerability(baseline: SpuriousAccuracies, quantized: SpuriousAccuracies) -> Estimate:
    """V = d(counter) - d(common), the study's; V = dRSG * A(quantized, common) / A(baseline, counter)."""
    of_counter, of_common = (relative_drop(b, q) for b, q in zip(baseline[::-1], quantized[::-1], strict=True))
    return of_counter - of_common


def names(sets: Sets) -> list[str]:
    """The metrics that these sets allow, but for that of two models together."""
    found = dict.fromkeys(metric for name in sets for metric in metrics_on_set(name))
    return [name for name in found if name != VULNERABILITY and registry.image_sets(name, sets)]


def metrics_on_set(name: str) -> list[str]:
    """The metrics that a set of that name is part of."""
    category, *parts = name.split(".")
    if category == "spurious":
        pair = ["spurious.gap", VULNERABILITY] if parts[0] in ("common", "counter") else []
        return [registry.SPURIOUS_ACCURACY + parts[0], *pair, "spurious.worst_group"]
    suffixes = ["", f".{'.'.join(parts)}"]
    if category == "corruption":
        kind, severity = parts
        suffixes += [f".{kind}", f".{severity}"]
    return [f"{category}.{statistic}{suffix}" for statistic in ("accuracy", "nll", "ece") for suffix in suffixes]


def values(sets: Sets, wanted: Collection[str] | None = None) -> dict[str, float]:
    """Every metric's value on these sets, or those of the wanted ones."""
    if wanted is None:
        wanted = names(sets)
    return {
        name: _value(sets, name)
        for name in wanted
        if name != VULNERABILITY and registry.lookup(name).aspect == "robustness" and registry.image_sets(name, sets)
    }


def vulnerability(baseline: Sets, quantized: Sets) -> float | None:
    """The study's V of quantization; None where there is no pair of common and counter images."""
    if not registry.image_sets(VULNERABILITY, baseline) or not registry.image_sets(VULNERABILITY, quantized):
        return None
    return additional_vulnerability(_spurious(baseline), _spurious(quantized)).value


def bounds(name: str, baseline: Sets, quantized: Sets) -> tuple[Callable[[float], Interval], str]:
    """The bounds of the change of a metric that both have, and by what method."""
    on = registry.image_sets(name, baseline)
    fewest = min(len(baseline[one]) for one in on)
    if fewest < 2:
        return (lambda alpha: Interval(-math.inf, math.inf)), "one sample"
    statistic = name.split(".")[1]
    if statistic == "ece":
        delta, error = _value(quantized, name) - _value(baseline, name), _ece_error(on, baseline, quantized)
        return widened(partial(normal_interval, delta, error), fewest), "paired, resampled halves"
    if statistic == "accuracy" and len(on) == 1:
        change = quantized[on[0]].correct - baseline[on[0]].correct
        return proportions.paired_score(change), "paired score"
    if name == VULNERABILITY:
        estimate = additional_vulnerability(_spurious(baseline), _spurious(quantized))
    else:
        estimate = _estimate(quantized, name) - _estimate(baseline, name)
    method = "paired, images as clusters" if name.startswith(GRID) else "paired, influence values"
    return widened(estimate.padded().interval, fewest), method


def _value(sets: Sets, name: str) -> float:
    if name.split(".")[1] == "ece":
        on = registry.image_sets(name, sets)
        return float(np.mean([_ece(sets[one]) for one in on]))
    return _estimate(sets, name).value


def _estimate(sets: Sets, name: str) -> Estimate:
    """Any of the metrics but ECE, whose bins are no mean of samples."""
    on, statistic = registry.image_sets(name, sets), name.split(".")[1]
    if statistic == "gap":
        return spurious_gap(_spurious(sets))
    if statistic == "worst_group":
        return min((_mean(sets[one].correct, one) for one in on), key=lambda estimate: estimate.value)
    per_sample = [sets[one].nll if statistic == "nll" else sets[one].correct for one in on]
    if name.startswith(GRID):  # the same images in every cell: they are what varies
        return _mean(np.mean(per_sample, axis=0), GRID)
    return influence.average([_mean(samples, one) for samples, one in zip(per_sample, on, strict=True)])


def _mean(samples: FloatArray, group: str) -> Estimate:
    return (
        influence.paired_mean(samples, group) if len(samples) > 1 else Estimate(float(samples[0]), {group: samples * 0})
    )


def _spurious(sets: Sets) -> SpuriousAccuracies:
    return SpuriousAccuracies(*(_mean(sets[f"spurious.{one}"].correct, one) for one in ("common", "counter")))


def _ece(predictions: Predictions) -> float:
    (table,) = calibration.tables(predictions, ["ece"])
    return float(table.values(table.sums())["ece"][0])


def _ece_error(on: Sequence[str], baseline: Sets, quantized: Sets) -> float:
    """The standard error of the change of the mean ECE.

    Sets of other images are independent; the cells of a grid hold the same images, which are in one half in all cells.
    """
    groups = [on] if on[0].startswith(GRID) else [[one] for one in on]
    errors = [
        calibration.errors_of_change([baseline[one] for one in group], [quantized[one] for one in group], ["ece"])
        for group in groups
    ]
    return math.hypot(*(error["ece"] for error in errors)) / len(groups)
