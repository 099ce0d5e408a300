"""Results as tests get them."""

from dataclasses import replace

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.verdicts.self_check import SelfCheck
from pytest_qreliab.plugin.case_check import CaseCheck, CaseSelfCheck


@pytest.fixture
def failing(small_result):
    """The same result, with its verdicts on calibration turned into failures."""
    verdicts = [
        replace(verdict, outcome="fail", passed=False) if verdict.gate.aspect == "calibration" else verdict
        for verdict in small_result.verdicts
    ]
    return CaseCheck(replace(small_result, verdicts=tuple(verdicts)), "pytest it")


def test_a_check_of_an_aspect_without_gates_is_no_pass(make_plan, small_benchmark, write_thresholds):
    from pytest_qreliab.evaluation.evaluator import Evaluator

    plan = make_plan(bits="w8", benchmarks=str(small_benchmark), thresholds=str(write_thresholds("ece: {max: 1}")))
    check = CaseCheck(Evaluator(plan).result(plan.cases[0]), repeat="pytest")
    check.check("calibration")
    with pytest.raises(InputError, match="no ood gate"):
        check.check("ood")


def test_what_the_documentation_promises_is_there(small_result):
    check = CaseCheck(small_result, "pytest it")
    for name in ("case", "changes", "verdicts", "coverage", "samples"):
        assert getattr(check, name) is getattr(small_result, name)


def test_a_failed_gate_fails_the_test_with_the_command_that_repeats_it(failing):
    with pytest.raises(pytest.fail.Exception) as failure:
        failing.check("calibration")
    assert "gates failed" in str(failure.value)
    assert str(failure.value).endswith("repeat: pytest it")
    assert not failure.value.pytrace
    failing.check("spectrum")


def test_properties_are_those_of_one_aspect_or_of_all(failing):
    properties = dict(failing.properties("calibration"))
    assert properties["qreliab.case"] == "tiny-digits/minmax/w8/small"
    assert properties["ece.max_rise.verdict"] == "fail"
    assert not [name for name in properties if name.startswith("accuracy")]
    assert dict(failing.properties(None)).keys() > properties.keys()


def test_accepted_values_and_conclusions_of_controls_are_properties_if_there_are_any(small_result):
    from types import SimpleNamespace

    (first, *_) = small_result.verdicts
    metric = first.gate.metric
    explanations = [SimpleNamespace(metric=name, conclusion="noise does it") for name in (metric, "ungated")]
    result = replace(
        small_result,
        verdicts=(replace(first, accepted=0.5, kernel_spread=0.001),),
        controls=SimpleNamespace(explanations=explanations),
    )
    properties = dict(CaseCheck(result, "pytest it").properties(None))
    assert properties[f"{metric}.{first.gate.limit}.accepted"] == 0.5
    assert properties[f"{metric}.{first.gate.limit}.kernel_spread"] == 0.001
    assert properties[f"{metric}.controls"] == "noise does it"
    assert "ungated.controls" not in properties


@pytest.mark.parametrize("name", ["changes", "verdicts", "coverage"])
def test_who_reads_a_value_has_judged(small_result, name):
    check = CaseCheck(small_result, "pytest it")
    assert check.case
    assert check.samples
    assert not check.judged
    getattr(check, name)
    assert check.judged


def test_who_checks_has_judged(small_result, failing):
    check = CaseCheck(small_result, "pytest it")
    check.check("accuracy")
    assert check.judged
    with pytest.raises(pytest.fail.Exception):
        failing.check("calibration")
    assert failing.judged


def test_names_of_properties_are_what_xml_can_hold(small_result):
    (first, *_) = small_result.verdicts
    odd = replace(first, gate=replace(first.gate, metric="recall.a\x1b[1m\nb"))
    names = dict(CaseCheck(replace(small_result, verdicts=(odd,)), "pytest it").properties(None))
    assert f"recall.a\\x1b[1m\\nb.{first.gate.limit}.verdict" in names


@pytest.fixture
def self_check(small_result):
    """Makes a self-check of two gates, of whose 200 replicates some failed."""
    from pytest_qreliab.evaluation.verdicts.self_check import GateCheck

    loose, tight = (verdict.gate for verdict in small_result.verdicts[:2])

    def self_check(failed: int) -> CaseSelfCheck:
        findings = SelfCheck(
            case=small_result.case,
            samples=120,
            device="cpu",
            replicates=200,
            failed=failed,
            allowed=0.05,
            gates=(GateCheck(loose, 0.0, 0.3), GateCheck(tight, failed / 200, 0.2)),
            left_out=("kl",),
        )
        return CaseSelfCheck(findings, "pytest it")

    return self_check


def test_a_self_check_fails_if_more_fails_than_chance_allows(self_check):
    self_check(10).check()
    with pytest.raises(pytest.fail.Exception) as failure:
        self_check(50).check()
    text = str(failure.value)
    assert text.startswith("self-check: 50 of 200 pairs that do not differ fail a gate, where 5.0% may")
    assert text.count("25.0%;") == 1  # gates without false failures are left out
    assert text.endswith("repeat: pytest it")


def test_the_record_of_a_self_check_is_made_of_plain_scalars(self_check):
    import json

    record = self_check(50).record()
    assert json.loads(json.dumps(record))["left_out"] == ["kl"]
    assert (record["failed"], record["passed"]) == (50, False)
    assert [gate[3] for gate in record["gates"]] == [0.0, 0.25]
    assert self_check(10).replicates == 200


def test_a_check_of_skipped_gates_skips_and_one_of_a_case_without_verdicts_fails(small_result):
    skipped = {"ood.auroc": "no OOD images", "ece": "no labels"}
    kept = tuple(verdict for verdict in small_result.verdicts if verdict.gate.aspect == "accuracy")
    check = CaseCheck(replace(small_result, verdicts=kept, skipped=skipped), "pytest it")
    check.check("accuracy")
    with pytest.raises(pytest.skip.Exception, match=r"^not judged: ood.auroc: no OOD images$"):
        check.check("ood")
    assert dict(check.properties("ood")) == {
        "qreliab.case": "tiny-digits/minmax/w8/small",
        "ood.auroc.skipped": "no OOD images",
    }
    check = CaseCheck(replace(small_result, verdicts=(), skipped=skipped), "pytest it")
    with pytest.raises(pytest.fail.Exception, match=r"nothing was judged of tiny-digits/.*; ece: no labels$"):
        check.check("ood")


def test_a_self_check_that_tried_no_gate_is_no_pass(self_check):
    check = self_check(0)
    check.check()
    with pytest.raises(pytest.fail.Exception, match=r"^none of the gates of tiny-digits/.* can be tried: kl$"):
        CaseSelfCheck(replace(check.findings, gates=()), "pytest it").check()
