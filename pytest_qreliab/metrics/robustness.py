"""Robustness: metrics of further labelled image sets, which are shifted, corrupted, or have a spurious cue.

The ratios are `Estimate`s, so that each has an interval; positive is worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from pytest_qreliab.metrics import calibration, registry, set_metrics
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.definitions import PairedBounds
from pytest_qreliab.metrics.names import MetricName, SetName
from pytest_qreliab.metrics.prediction_kinds import paired_score
from pytest_qreliab.metrics.prediction_metrics import OWN
from pytest_qreliab.statistics import influence
from pytest_qreliab.statistics.arrays import FloatArray, IntArray
from pytest_qreliab.statistics.influence import Estimate
from pytest_qreliab.statistics.interval import Interval, normal_interval, widen_if_empty

Sets = Mapping[str, Predictions]  # by the full name of the set
Samples = Callable[[Predictions], FloatArray]  # a number per sample, (n,)
Estimator = Callable[[Sets, Sequence[str]], Estimate]  # of the sets with these names
VULNERABILITY = "spurious.vulnerability"
GRID = "corruption"  # the group whose samples are images, each in every cell


def relative_drop(reference: Estimate, other: Estimate) -> Estimate:
    """Return (reference - other) / reference, the study's d(D).

    The study takes it of the accuracies in full precision and quantized on one set. The spurious gap is of the same
    form, within one model. Over an accuracy of 0 it is NaN, and so are its bounds.

    Example:
        >>> relative_drop(Estimate(0.5, {}), Estimate(0.25, {})).value
        0.5
    """
    return (reference - other) / reference


class SpuriousAccuracies(NamedTuple):
    """The accuracies of a model on the common background, and on another one (CounterAnimal)."""

    common: Estimate
    counter: Estimate


def spurious_gap(model: SpuriousAccuracies) -> Estimate:
    """Return RSG(m) = (A(m, common) - A(m, counter)) / A(m, common), the study's relative spurious gap.

    Example:
        >>> spurious_gap(SpuriousAccuracies(common=Estimate(0.5, {}), counter=Estimate(0.25, {}))).value
        0.5
    """
    return relative_drop(model.common, model.counter)


def spurious_gap_rise(baseline: SpuriousAccuracies, quantized: SpuriousAccuracies) -> Estimate:
    """Return dRSG = RSG(quantized) - RSG(baseline).

    Example:
        >>> full = SpuriousAccuracies(common=Estimate(0.5, {}), counter=Estimate(0.5, {}))
        >>> spurious_gap_rise(full, SpuriousAccuracies(common=Estimate(0.5, {}), counter=Estimate(0.25, {}))).value
        0.5
    """
    return spurious_gap(quantized) - spurious_gap(baseline)


def additional_vulnerability(baseline: SpuriousAccuracies, quantized: SpuriousAccuracies) -> Estimate:
    """Return the study's V = d(counter) - d(common) = dRSG * A(quantized, common) / A(baseline, counter).

    Example:
        >>> full = SpuriousAccuracies(common=Estimate(0.5, {}), counter=Estimate(0.5, {}))
        >>> quantized = SpuriousAccuracies(common=Estimate(0.5, {}), counter=Estimate(0.25, {}))
        >>> additional_vulnerability(full, quantized).value
        0.5
    """
    of_counter, of_common = (relative_drop(b, q) for b, q in zip(baseline[::-1], quantized[::-1], strict=True))
    return of_counter - of_common


def names(sets: Sets) -> list[str]:
    """Return the metrics of one model that these sets allow.

    Example:
        >>> names({"spurious.night": None})
        ['spurious.accuracy.night', 'spurious.worst_group']
    """
    found = dict.fromkeys(metric for name in sets for metric in metrics_on_set(name))
    return [name for name in found if name != VULNERABILITY and registry.image_sets(name, sets)]


def metrics_on_set(name: str) -> list[str]:
    """Return the metrics that an image set is part of, by its full name.

    Example:
        >>> metrics_on_set("spurious.night")
        ['spurious.accuracy.night', 'spurious.worst_group']
    """
    of = SetName.parse(name)
    if of.category == "spurious":
        pair = ["spurious.gap", VULNERABILITY] if of.name in set_metrics.SPURIOUS_PAIR else []
        return [f"spurious.accuracy.{of.name}", *pair, "spurious.worst_group"]
    parts = ["", f"{of.group}.{of.name}", of.group, of.name] if of.group else ["", of.name]
    return [
        str(MetricName(family=of.category, statistic=statistic, part=part))
        for statistic in set_metrics.STATISTICS
        for part in parts
    ]


def values(sets: Sets, wanted: Collection[str] | None = None) -> dict[str, float]:
    """Return the value of every metric of one model on these sets, or of the wanted ones.

    Example:
        >>> import numpy as np, torch
        >>> from pytest_qreliab.metrics.classification import predict
        >>> logits, labels = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), np.array([0, 0])
        >>> values({"shift.sketch": predict(logits, labels)}, ["shift.accuracy"])
        {'shift.accuracy': 0.5}
    """
    if wanted is None:
        wanted = names(sets)
    return {
        name: _value(sets, name)
        for name in wanted
        if name != VULNERABILITY and registry.lookup(name).aspect == "robustness" and registry.image_sets(name, sets)
    }


def vulnerability(baseline: Sets, quantized: Sets) -> float | None:
    """Return the study's V of quantization; None if there is no pair of common and counter images.

    Example:
        >>> import numpy as np, torch
        >>> from pytest_qreliab.metrics.classification import predict
        >>> logits = torch.tensor([[9.0, 0.0], [9.0, 0.0]])
        >>> right, half = predict(logits, np.array([0, 0])), predict(logits, np.array([0, 1]))
        >>> before = {"spurious.common": right, "spurious.counter": right}
        >>> vulnerability(before, {**before, "spurious.counter": half})
        0.5
    """
    if not registry.image_sets(VULNERABILITY, baseline) or not registry.image_sets(VULNERABILITY, quantized):
        return None
    return additional_vulnerability(_spurious(baseline), _spurious(quantized)).value


def bounds(name: str, baseline: Sets, quantized: Sets, units: Mapping[str, IntArray] | None = None) -> PairedBounds:
    """Return the bounds on the change of a metric that both models have, and their method.

    Args:
        name: The name of the metric.
        baseline: The predictions in full precision, by the full name of the set.
        quantized: The predictions of the quantized model on the same samples.
        units: The number of the unit that each sample shows, (n,), by the full name of the set. Samples of one unit,
            in one set or in several, are one observation. None: every sample is one of its own.

    Example:
        >>> import numpy as np, torch
        >>> from pytest_qreliab.metrics.classification import predict
        >>> sets = {"shift.sketch": predict(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), np.array([0, 0]))}
        >>> bounds("shift.accuracy", sets, sets).method
        'paired score'
    """
    on, parsed, units = registry.image_sets(name, baseline), MetricName.parse(name), units or {}
    fewest = min(len(baseline[of]) for of in on)
    if fewest < 2:
        return PairedBounds(lambda alpha: Interval(-math.inf, math.inf), "one sample")
    if name == VULNERABILITY:
        change = additional_vulnerability(_spurious(baseline), _spurious(quantized))
    elif parsed.statistic == "accuracy" and len(on) == 1 and not _repeats(units.get(on[0])):
        return paired_score(quantized[on[0]].correct - baseline[on[0]].correct)
    elif (estimate := _estimator(name)) is not None:
        change = estimate(quantized, on) - estimate(baseline, on)
    else:
        delta = _value(quantized, name) - _value(baseline, name)
        error = _error(parsed.statistic, on, baseline, quantized)
        return PairedBounds(widen_if_empty(partial(normal_interval, delta, error), fewest), "paired, resampled halves")
    clusters = parsed.family == GRID or any(of in units for of in on)
    method = "paired, images as clusters" if clusters else "paired, influence values"
    return PairedBounds(widen_if_empty(change.clustered(units).pad().interval, fewest), method)


def _repeats(units: IntArray | None) -> bool:
    return units is not None and len(np.unique(units)) < len(units)


def _value(sets: Sets, name: str) -> float:
    on, estimate = registry.image_sets(name, sets), _estimator(name)
    if estimate is not None:
        return estimate(sets, on).value
    metric = OWN[MetricName.parse(name).statistic]
    return float(np.mean([metric.value(sets[of]) for of in on]))


def _estimator(name: str) -> Estimator | None:
    """Return the function that estimates a metric of one model; None for a binned metric, which is no mean."""
    parsed = MetricName.parse(name)
    if name in _OF_GROUPS:
        return _OF_GROUPS[name]
    samples = set_metrics.STATISTICS[parsed.statistic].samples
    if samples is None:
        return None
    return partial(_mean_of_grid if parsed.family == GRID else _mean_of_sets, samples)


def _mean_of_grid(samples: Samples, sets: Sets, on: Sequence[str]) -> Estimate:
    """Return a mean over the cells of a grid, which hold the same images: they are what varies."""
    return _mean(np.mean([samples(sets[of]) for of in on], axis=0), GRID)


def _mean_of_sets(samples: Samples, sets: Sets, on: Sequence[str]) -> Estimate:
    return influence.average([_mean(samples(sets[of]), of) for of in on])


def _worst_group(sets: Sets, on: Sequence[str]) -> Estimate:
    return min((_mean(sets[of].correct, of) for of in on), key=lambda estimate: estimate.value)


_OF_GROUPS: dict[str, Estimator] = {
    "spurious.gap": lambda sets, on: spurious_gap(_spurious(sets)),
    "spurious.worst_group": _worst_group,
}


def _mean(samples: FloatArray, group: str) -> Estimate:
    return (
        influence.paired_mean(samples, group) if len(samples) > 1 else Estimate(float(samples[0]), {group: samples * 0})
    )


def _spurious(sets: Sets) -> SpuriousAccuracies:
    pair = [f"spurious.{of}" for of in set_metrics.SPURIOUS_PAIR]
    return SpuriousAccuracies(*(_mean(sets[of].correct, of) for of in pair))


def _error(metric: str, on: Sequence[str], baseline: Sets, quantized: Sets) -> float:
    """Return the standard error of the change of the mean over sets of a binned metric.

    Sets of other images are independent; the cells of a grid hold the same images, which are in one half in all cells.
    """
    groups = [on] if SetName.parse(on[0]).category == GRID else [[of] for of in on]
    errors = [
        calibration.change_errors([baseline[of] for of in group], [quantized[of] for of in group], [metric])
        for group in groups
    ]
    return math.hypot(*(error[metric] for error in errors)) / len(groups)
