"""The message of a failed test."""

from dataclasses import replace

import pytest

from pytest_qreliab.config.thresholds import Gate
from pytest_qreliab.evaluation.verdicts.gates import Verdict
from pytest_qreliab.report.failure_message import explain
from pytest_qreliab.statistics.interval import Interval


@pytest.fixture
def verdict():
    return Verdict(
        gate=Gate(metric="accuracy", limit="max_drop", value=0.02, where="limits.yaml:4"),
        outcome="fail",
        passed=False,
        baseline=0.95,
        quantized=0.875,
        harm=0.075,
        interval=Interval(0.05, 0.1),
        method="paired score",
    )


def lines(*verdicts: Verdict, alpha: float = 0.025) -> list[str]:
    return explain("a/b/w4/c", verdicts, gates=3, samples=120, alpha=alpha, repeat="pytest it").splitlines()


def test_all_that_is_needed_to_judge_and_repeat_is_there(verdict):
    assert lines(verdict) == [
        "accuracy: 1 of 3 gates failed",
        "  case: a/b/w4/c, 120 samples",
        "",
        "  accuracy (top-1 accuracy)",
        "    baseline   0.9500",
        "    quantized  0.8750",
        "    harm       0.0750, interval 0.0500 to 0.1000",
        "    method     paired score; each bound holds with 97.50% confidence",
        "    limit      max_drop 0.02, limits.yaml:4",
        "",
        "  repeat: pytest it",
    ]


def test_a_drift_has_what_was_accepted_and_the_spread_of_kernels_beside_it(verdict):
    gate = replace(verdict.gate, limit="max_drift")
    drift = replace(verdict, gate=gate, interval=None, method="drift", accepted=0.95, kernel_spread=0.00123)
    assert lines(drift)[4:9] == [
        "    baseline   0.9500",
        "    accepted   0.9500",
        "    quantized  0.8750",
        "    harm       0.0750",
        "    kernels    another attention kernel moves it by 0.0012",
    ]


def test_a_metric_with_two_failed_gates_is_named_once_in_the_headline(verdict):
    other = replace(verdict, gate=replace(verdict.gate, metric="ece", limit="max_rise"))
    assert lines(verdict, verdict, other)[0] == "accuracy, ece: 3 of 3 gates failed"


def test_an_inconclusive_gate_says_how_many_samples_would_settle_it(verdict):
    inconclusive = replace(verdict, outcome="inconclusive", samples_to_settle=900)
    told = "    verdict    inconclusive: the interval holds the limit"
    assert f"{told}; about 900 samples would settle it" in lines(inconclusive)
    assert f"{told}; the estimate stands at the limit" in lines(replace(inconclusive, samples_to_settle=None))


def test_a_gate_on_one_set_is_not_said_to_be_on_a_mean(verdict):
    found = lines(replace(verdict, gate=replace(verdict.gate, metric="shift.accuracy.sketch")))
    assert "  shift.accuracy.sketch (accuracy under covariate shift, on sketch)" in found


def test_a_gate_that_could_not_be_judged_says_why_in_the_place_of_the_harm(verdict):
    found = lines(replace(verdict, problem="NaN in it", accepted=0.9))
    assert "    problem    NaN in it" in found
    assert "    accepted   0.9000" in found
    assert not [line for line in found if "harm" in line or "method" in line]


def test_a_harm_without_interval_has_no_method(verdict):
    found = lines(replace(verdict, interval=None))
    assert "    harm       0.0750" in found
    assert not [line for line in found if "confidence" in line]
