"""The families of metrics: which there are, and what each computes of one model and of two."""

import math

import numpy as np
import pytest

from pytest_qreliab.evaluation.measurement.families import BY_NAME, FAMILIES, MeasuredPair
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


@pytest.mark.parametrize("name", ["brier", "rescaled.ece", "ood.fpr95.knn.near", "corruption.nll.fog"])
def test_only_what_is_wanted_is_computed(by_hand, name):
    measured = by_hand.measured()
    assert BY_NAME[MetricName.parse(name).family].values(measured, [name]) == {name: measured.values[name]}


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
