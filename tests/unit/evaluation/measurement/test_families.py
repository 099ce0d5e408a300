"""The families of metrics: which there are, and what each computes of one model and of two."""

import math

import numpy as np
import pytest

from pytest_qreliab.evaluation.measurement.families import BY_NAME, FAMILIES, MeasuredPair
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.measurement.spectral import STATISTICS
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.names import FAMILIES as NAMES
from pytest_qreliab.metrics.names import PREDICTION, MetricName


def test_every_name_has_a_family():
    assert BY_NAME.keys() == {PREDICTION, *NAMES}


def test_families_share_the_values_out(by_hand):
    measured = by_hand.measured()
    shares = [family.values(measured, None) for family in FAMILIES]
    assert sum(map(len, shares)) == len(measured.values)
    for name, family in BY_NAME.items():
        assert any(MetricName.parse(metric).family == name for metric in family.values(measured, None)), name


def test_another_number_of_bins_is_a_metric_of_both_models(by_hand):
    baseline, quantized = by_hand.measured(), by_hand.measured(0.5)
    for name in ("ece.20", "rescaled.ece.equal_mass.20", "ece.rms.1"):
        values = [BY_NAME[PREDICTION].values(measured, [name])[name] for measured in (baseline, quantized)]
        found = BY_NAME[PREDICTION].pair_values(MeasuredPair(baseline, quantized), [name])[name]
        assert (found.baseline, found.quantized, found.problem) == (*values, "")
        low, high = BY_NAME[PREDICTION].bounds(MetricName.parse(name), MeasuredPair(baseline, quantized)).bounds(0.05)
        assert low < values[1] - values[0] < high
    assert "ece.20" not in baseline.values  # it is computed only if it is wanted


def test_the_same_number_of_bins_gives_the_same_values_and_bounds(by_hand):
    pair = MeasuredPair(by_hand.measured(), by_hand.measured(0.5))
    for name in ("ece", "ece.equal_mass", "rescaled.ece.debiased"):
        named = BY_NAME[PREDICTION].pair_values(pair, [f"{name}.15"])[f"{name}.15"]
        assert named.quantized == pair.quantized.values[name]
        plain, with_bins = (BY_NAME[PREDICTION].bounds(MetricName.parse(n), pair) for n in (name, f"{name}.15"))
        assert plain.bounds(0.05) == with_bins.bounds(0.05)


def test_a_number_of_bins_has_the_problems_of_the_metric(by_hand):
    broken = measure(by_hand.place(by_hand.embeddings(), "ID features", math.nan), by_hand.CLASSES)
    pair = MeasuredPair(by_hand.measured(), broken)
    for name in ("ece.20", "rescaled.ece.rms.20"):
        found = BY_NAME[PREDICTION].pair_values(pair, [name])[name]
        assert math.isnan(found.quantized)
        assert found.problem.startswith("quantized: NaN, infinity or a zero vector in 1 of 200 in-distribution")


@pytest.mark.parametrize("name", ["brier", "ece.20", "rescaled.ece", "ood.fpr95.knn.near", "corruption.nll.fog"])
def test_only_what_is_wanted_is_computed(by_hand, name):
    measured = by_hand.measured()
    assert BY_NAME[MetricName.parse(name).family].values(measured, [name]).keys() == {name}


def test_metrics_of_two_models_together_are_perfect_in_the_baseline(by_hand):
    pair = MeasuredPair(by_hand.measured(), by_hand.measured())
    for family in FAMILIES:
        for name, value in family.pair_values(pair, by_hand.OF_PAIR).items():
            assert value.baseline == pytest.approx(value.quantized, abs=1e-6) or not np.isfinite(value.baseline), name


def test_what_a_spectral_metric_lacks_is_a_problem_and_no_error(by_hand):
    pair = MeasuredPair(by_hand.measured(), by_hand.measured())
    found = BY_NAME["spectral"].pair_values(pair, ["spectral.map_error", "spectral.sqnr.penultimate"])
    assert all(math.isnan(value.quantized) and value.problem for value in found.values())


def test_every_spectral_metric_but_those_of_weights_has_a_statistic():
    names = [name for name in registry.of_aspect("spectrum") if "weights" not in registry.lookup(name).needs]
    assert [
        MetricName.parse(name).statistic for name in names if MetricName.parse(name).statistic not in STATISTICS
    ] == []
    assert len(STATISTICS) == len(names)
