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


def test_a_case_of_which_nothing_was_judged_does_not_pass(record):
    assert queries.passed(record)
    assert not queries.passed({**record, "gates": []})


def test_gates_that_were_not_judged_share_a_line_by_reason_and_cases(build):
    maps, sets = "no patch map", "no images"
    cases = [{"a": maps, "b": maps, "c": sets}, {"a": maps, "b": maps}, {}, {"c": sets}]
    records = [build.case(index, skipped=skipped) for index, skipped in enumerate(cases)]
    first, second, _, fourth = (record["case"] for record in records)
    assert queries.skipped_lines(records) == [
        f"not judged: a, b of {first}, {second}: no patch map",
        f"not judged: c of {first}, {fourth}: no images",
    ]
    assert queries.skipped_lines(records[:1]) == ["not judged: a, b: no patch map", "not judged: c: no images"]
    assert queries.count_skipped(records) == "6 gated metrics not judged"
    assert queries.count_skipped(records[3:]) == "1 gated metric not judged"
    assert queries.count_skipped(records[2:3]) == ""
    many = [build.case(index, skipped={"a": maps}) for index in range(5)]
    (line,) = queries.skipped_lines([*many, build.case(9)])
    assert line == f"not judged: a of {', '.join(record['case'] for record in many[:3])} and 2 more: no patch map"


def test_quantizers_that_are_trained_on_the_same_share_a_line(build):
    trained = {"lsq": "images of a", "minmax": "", "dsq": "images of a", "distillation": "pairs in b.csv"}
    records = [build.case(quantizer=name, bits=bits, trained_on=trained[name]) for name in trained for bits in "ab"]
    assert queries.training_lines(records) == [
        "lsq, dsq: trained on images of a",
        "distillation: trained on pairs in b.csv",
    ]
