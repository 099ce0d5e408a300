"""Answers to what reports ask of records."""

import math

import pytest

from pytest_qreliab.report import queries


@pytest.fixture
def record(build):
    """A case that passes, with gates on the drift of two metrics, one of which has no other gate."""
    record = build.case()
    drift = {"limit": "max_drift", "accepted": 0.95, "quantized": 0.9}
    accuracy, ece = record["gates"][0], record["gates"][3]
    record["gates"] = [accuracy, accuracy | drift, ece | drift]
    return record


def test_the_change_from_full_precision_goes_before_the_drift(record):
    assert queries.worst_gates(record) == {"accuracy": record["gates"][0], "ece": record["gates"][2]}


def test_the_worst_gate_of_a_metric_fails_or_else_is_inconclusive(record):
    passing = record["gates"][0]
    inconclusive, failing = passing | {"outcome": "inconclusive"}, passing | {"outcome": "fail", "passed": False}
    record["gates"] = [passing, inconclusive]
    assert queries.worst_gates(record) == {"accuracy": inconclusive}
    record["gates"] = [failing, passing, inconclusive]
    assert queries.worst_gates(record) == {"accuracy": failing}


def test_only_failures_of_the_drift_are_told_apart(record):
    assert queries.drift_failures(record) == {}
    record["gates"][2].update(outcome="fail", passed=False)
    assert queries.drift_failures(record) == {"ece": record["gates"][2]}
    assert not queries.passed(record)


def test_the_drift_is_the_change_from_the_accepted_value(record):
    assert queries.drift_of(record["gates"][1]) == pytest.approx(-0.05)
    assert math.isnan(queries.drift_of(record["gates"][0]))


def test_an_inconclusive_gate_that_is_refused_is_shown_as_failed(record):
    gate = record["gates"][0] | {"outcome": "inconclusive"}
    assert queries.shown_verdict(gate) == "inconclusive"
    assert queries.shown_verdict(gate | {"passed": False}) == "fail"
