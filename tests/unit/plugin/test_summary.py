"""The way of results from the tests to the summary."""

from types import SimpleNamespace

import pytest

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.formats import Format
from pytest_qreliab.plugin.state import CASE, CHECK, PROBLEM
from pytest_qreliab.plugin.summary import Summary, attach_results


def report(**given: object) -> SimpleNamespace:
    return SimpleNamespace(**{"keywords": {}, "failed": False, "skipped": False, "longrepr": None, **given})


def crashed(message: str) -> SimpleNamespace:
    return SimpleNamespace(reprcrash=SimpleNamespace(message=message))


@pytest.fixture
def summary():
    return Summary(SimpleNamespace(stash={}))


def test_records_and_self_checks_are_gathered_by_their_case(summary):
    first, second = {"case": "a", "n": 1}, {"case": "b"}
    for record in (first, second, {"case": "a", "n": 2}):
        summary.pytest_runtest_logreport(report(qreliab=record))
    summary.pytest_runtest_logreport(report(qreliab_self_check=second))
    summary.pytest_runtest_logreport(report(qreliab=None))
    assert summary._records == {"a": {"case": "a", "n": 2}, "b": second}
    assert summary._self_checks == {"b": second}
    assert summary._errors == {}


def test_the_first_error_of_a_case_is_kept_without_what_follows_its_first_line(summary):
    summary.pytest_runtest_logreport(report(qreliab_case="a", longrepr=crashed("Failed: no such image\nmore")))
    summary.pytest_runtest_logreport(report(qreliab_case="a", longrepr=crashed("another")))
    summary.pytest_runtest_logreport(report(qreliab_case="b", longrepr="\nas text\nmore"))
    assert summary._errors == {"a": "no such image", "b": "as text"}


BUILD = Build(model="a", quantizer="b", bits=Format.integers(4), scope="both", calibration=None)


def item(params: dict[str, object], stash: dict) -> SimpleNamespace:
    return SimpleNamespace(stash=stash, callspec=SimpleNamespace(params=params), user_properties=[])


def test_a_failed_test_names_its_case_and_a_passed_one_does_not():
    ours = item({CASE: Case(BUILD, "c")}, {})
    failed, passed = report(failed=True), report()
    attach_results(ours, "setup", failed)
    attach_results(ours, "setup", passed)
    assert failed.qreliab_case == "a/b/w4/c"
    assert not hasattr(passed, "qreliab_case")
    ours.stash[PROBLEM] = "no such image"
    attach_results(ours, "setup", failed)
    assert failed.qreliab_problem == "no such image"
    theirs = report(failed=True)
    attach_results(item({"x": 1}, {}), "setup", theirs)
    assert not hasattr(theirs, "qreliab_case")


def test_a_result_is_attached_at_the_call_and_let_go_at_the_end(make_session, small_result):
    from pytest_qreliab.plugin.case_check import CaseCheck
    from pytest_qreliab.plugin.state import SESSION

    session = make_session("--qreliab-bits=w8")
    check = CaseCheck(small_result, "pytest it")
    ours = item({CASE: small_result.case}, {CHECK: check})
    ours.config = SimpleNamespace(stash={SESSION: session})
    ours.get_closest_marker = lambda name: pytest.mark.qreliab(aspect="accuracy").mark
    called = report(failed=True, longrepr=crashed("accuracy: 1 of 1 gates failed\nthe whole explanation"))
    attach_results(ours, "call", called)
    assert called.qreliab["case"] == "tiny-digits/minmax/w8/small"
    assert called.longrepr.reprcrash.message == "accuracy: 1 of 1 gates failed"
    properties = dict(ours.user_properties)
    assert "accuracy.max_drop.verdict" in properties
    assert not [name for name in properties if name.startswith("ece")]
    assert not called.qreliab_judged
    ours.user_properties.append(("theirs", 1))
    check.check("accuracy")
    again = report()
    attach_results(ours, "call", again)  # as plugins do that repeat a test
    assert again.qreliab_judged
    assert dict(ours.user_properties) == {**properties, "theirs": 1}
    assert len(ours.user_properties) == len(properties) + 1
    attach_results(ours, "teardown", report())
    assert CHECK not in ours.stash


def test_a_test_that_uses_only_the_case_or_a_model_judges_by_itself():
    ours = item({CASE: Case(BUILD, "c")}, {})
    called, skipped = report(skipped=False), report(skipped=True)
    attach_results(ours, "call", called)
    attach_results(ours, "call", skipped)
    assert (called.qreliab_judged, skipped.qreliab_judged) == (True, False)
    expected = report(skipped=True, wasxfail="")
    attach_results(ours, "call", expected)
    assert expected.qreliab_judged
