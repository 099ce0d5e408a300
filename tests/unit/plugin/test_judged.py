"""Whether a run judged anything."""

from types import SimpleNamespace

import pytest

from pytest_qreliab.plugin.judged import Judged
from pytest_qreliab.plugin.state import ELSEWHERE, SESSION, SHIPPED

OK, NOTHING, FAILED = pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.TESTS_FAILED


def report(**given: object) -> SimpleNamespace:
    return SimpleNamespace(**{"nodeid": "t", "keywords": {"qreliab": 1}, "when": "call", "skipped": False, **given})


@pytest.fixture
def config(monkeypatch):
    """Makes the config of a run, in which nothing is asked for by itself."""
    monkeypatch.setattr("pytest_qreliab.plugin.judged.settings_are_given", lambda config: config.given)

    def config(*args: str, given: bool = False, stash: dict | None = None, **options: bool):
        return SimpleNamespace(
            getoption=lambda name, default=None: options.get(name, default),
            invocation_params=SimpleNamespace(args=args),
            stash={SHIPPED: None, **(stash or {})},
            given=given,
        )

    return config


@pytest.fixture
def judged():
    """Makes what the reports of a run say."""

    def judged(*reports: SimpleNamespace) -> Judged:
        made = Judged()
        for each in reports:
            made.note(each)
        return made

    return judged


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([report(qreliab_judged=True)], ""),
        ([report(qreliab_judged=False), report(nodeid="u", qreliab_judged=True)], ""),
        ([report(when="setup"), report(qreliab_judged=True), report(when="teardown")], ""),
        ([report(when="setup"), report(qreliab_judged=False), report(when="teardown")], "no test called check"),
        ([report(when="setup", skipped=True), report(when="teardown")], "every reliability test was skipped"),
        ([report(keywords={})], ""),
        ([], ""),
    ],
)
def test_a_run_that_judged_nothing_is_no_success(config, judged, reports, reason):
    made = judged(*reports)
    assert made.exit_status(config(), OK) == (NOTHING if reason else OK)
    assert made.exit_status(config(), FAILED) == FAILED
    lines = made.lines(config())
    assert len(lines) == bool(reason)
    assert reason in "".join(lines)


def test_a_run_that_was_asked_for_must_select_a_test(config, judged):
    made = judged(report(keywords={}))
    asked = config("--qreliab-bits=w8", "unit")
    assert made.exit_status(asked, OK) == NOTHING
    assert made.lines(asked) == ["qreliab: nothing was judged, because no reliability test was selected"]
    assert made.exit_status(config("qreliab", stash={SHIPPED: []}), OK) == NOTHING


@pytest.mark.parametrize("option", ["collectonly", "setuponly", "setupplan", "markers"])
def test_what_runs_no_tests_need_not_judge(config, judged, option):
    made = judged()
    assert made.exit_status(config("--qreliab-bits=w8", **{option: True}), OK) == OK
    assert made.lines(config("--qreliab-bits=w8", **{option: True})) == []


def test_a_shard_whose_tests_are_elsewhere_is_a_success_that_says_so(config, judged):
    session = SimpleNamespace(shard="shard 2 of 2")
    made = config("--qreliab-shard=2/2", stash={ELSEWHERE: True, SESSION: session})
    assert judged().exit_status(made, NOTHING) == OK
    (line,) = judged().lines(made)
    assert line == "qreliab: shard 2 of 2 has none of the selected tests: nothing to judge here"


def test_settings_that_nobody_used_are_a_hint_and_no_failure(config, judged):
    made = judged(report(keywords={}))
    (line,) = made.lines(config(given=True))
    assert line.endswith("pytest qreliab runs the shipped ones")
    assert made.exit_status(config(given=True), OK) == OK
    assert made.lines(config(given=True, collectonly=True)) == []


def test_a_worker_leaves_it_to_the_controller(config, judged):
    made = config("--qreliab-bits=w8")
    made.workerinput = {"qreliab_asked": True}
    assert judged().exit_status(made, OK) == OK
