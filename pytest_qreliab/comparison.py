"""From two measurements on the same samples to the change of each metric, with its paired interval."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from pytest_qreliab.measurement import Measurement
from pytest_qreliab.metrics import calibration, classification, ood, registry
from pytest_qreliab.metrics.classification import Floats, Labels
from pytest_qreliab.statistics import bootstrap, delong, means, proportions
from pytest_qreliab.statistics.interval import Interval


@dataclass(frozen=True)
class Change:
    """One metric in both models. `interval` bounds quantized - baseline; None where none is computed.

    `problem` says why a value is not a number, and is empty when both are.
    """

    metric: str
    baseline: float
    quantized: float
    interval: Interval | None
    method: str
    problem: str

    @property
    def delta(self) -> float:
        return self.quantized - self.baseline


def compare(baseline: Measurement, quantized: Measurement, wanted: Collection[str], alpha: float) -> dict[str, Change]:
    """The change of every metric that either measurement holds; intervals, at one-sided `alpha`, for `wanted`."""
    changes = {}
    names = list(dict.fromkeys([*baseline.values, *quantized.values]))
    for name in names:
        problems = [
            f"{who}: {measurement.problems[name]}"
            for who, measurement in (("baseline", baseline), ("quantized", quantized))
            if name in measurement.problems
        ]
        interval, method = None, ""
        if name in wanted and not problems:
            interval, method = _interval(name, baseline, quantized, alpha)
        changes[name] = Change(
            name,
            baseline.values.get(name, float("nan")),
            quantized.values.get(name, float("nan")),
            interval,
            method,
            "; ".join(problems),
        )
    return changes


def _interval(name: str, baseline: Measurement, quantized: Measurement, alpha: float) -> tuple[Interval | None, str]:
    if name.startswith("ood."):
        return _ood_interval(name, baseline, quantized, alpha)
    b, q, labels = baseline.records, quantized.records, baseline.labels
    if name == "spectral.effective_rank":
        return None, "no interval"
    if name == "spectral.high_band_energy":
        return means.t_interval(q["high_band"] - b["high_band"], alpha), "paired t"
    if name == "nll":
        return means.t_interval(q["nll"] - b["nll"], alpha), "paired t"
    if name == "confidence_gap":
        gaps = (q["confidence"] - q["correct"]) - (b["confidence"] - b["correct"])
        return means.t_interval(gaps, alpha), "paired t"
    if name == "accuracy":
        gained, lost = (int((q["correct"] - b["correct"] == sign).sum()) for sign in (1, -1))
        p = proportions.mcnemar(gained, lost)
        method = f"paired score; McNemar p = {p:.2g}, {lost} lost, {gained} gained"
        return proportions.score_interval(gained, lost, len(labels), alpha), method
    replicate = {"balanced_accuracy": _balanced_accuracy, "ece": _ece}[name]
    interval = bootstrap.interval(
        lambda counts: replicate(q, labels, counts) - replicate(b, labels, counts), [len(labels)], alpha
    )
    return interval, "paired bootstrap"


def _balanced_accuracy(records: Mapping[str, Floats], labels: Labels, counts: bootstrap.Counts) -> Floats:
    return classification.balanced_accuracy(records["correct"], labels, counts)


def _ece(records: Mapping[str, Floats], labels: Labels, counts: bootstrap.Counts) -> Floats:
    return calibration.expected_calibration_error(records["confidence"], records["correct"], counts)


def _ood_interval(name: str, baseline: Measurement, quantized: Measurement, alpha: float) -> tuple[Interval, str]:
    _, statistic, score, *only = registry.canonical(name).split(".", 3)
    sets = only or list(baseline.ood_scores[score])
    if statistic == "auroc":
        of_b, of_q = baseline.placements(score, sets), quantized.placements(score, sets)
        return delong.difference_interval(of_b, of_q, alpha), "paired DeLong"

    def difference(id_counts: bootstrap.Counts, *ood_counts: bootstrap.Counts) -> Floats:
        per_set = [
            ood.fpr_at_95(q_id, q_ood[of], id_counts, counts) - ood.fpr_at_95(b_id, b_ood[of], id_counts, counts)
            for of, counts in zip(sets, ood_counts, strict=True)
        ]
        mean: Floats = np.mean(per_set, axis=0)
        return mean

    b_id, q_id = baseline.id_scores[score], quantized.id_scores[score]
    b_ood, q_ood = baseline.ood_scores[score], quantized.ood_scores[score]
    sizes = [len(b_id), *(len(b_ood[of]) for of in sets)]
    return bootstrap.interval(difference, sizes, alpha), "paired bootstrap"
