"""Whether a run judged anything: one that judged nothing is not green."""

from __future__ import annotations

import pytest

from pytest_qreliab.plugin.options import runs_tests, settings_are_given
from pytest_qreliab.plugin.state import ELSEWHERE, SESSION, is_asked


class Judged:
    """The judgements of a run's tests, as their reports tell them.

    A test judges a result if it calls `check` or reads `verdicts`, `changes` or `coverage`. A test that uses only the
    models or the case judges by itself.
    """

    def __init__(self) -> None:
        self._outcomes: dict[str, str] = {}  # of the reliability tests: judged, ran, skipped or left

    def note(self, report: pytest.TestReport) -> None:
        """Take up the report of a phase of a test."""
        if "qreliab" not in report.keywords:
            return
        if getattr(report, "qreliab_judged", False):
            outcome = "judged"
        elif report.skipped:
            outcome = "skipped"
        elif report.when == "call":
            outcome = "ran"
        else:
            outcome = self._outcomes.get(report.nodeid, "left")
        self._outcomes[report.nodeid] = outcome

    def exit_status(self, config: pytest.Config, status: int | pytest.ExitCode) -> int | pytest.ExitCode:
        """Return the exit status of the run: no success if nothing was judged.

        Args:
            config: Of the run, not of a worker.
            status: pytest's own exit status.
        """
        nothing = pytest.ExitCode.NO_TESTS_COLLECTED
        if status not in (pytest.ExitCode.OK, nothing) or not self._reason(config):
            return status
        return pytest.ExitCode.OK if self._is_elsewhere(config) else nothing

    def lines(self, config: pytest.Config) -> list[str]:
        """Return what to say at the end if nothing was judged."""
        if reason := self._reason(config):
            return [f"qreliab: {reason}"]
        if runs_tests(config) and not self._outcomes and not is_asked(config) and settings_are_given(config):
            return ["qreliab: settings are given, and no reliability test ran: pytest qreliab runs the shipped ones"]
        return []

    def _is_elsewhere(self, config: pytest.Config) -> bool:
        return not self._outcomes and ELSEWHERE in config.stash

    def _reason(self, config: pytest.Config) -> str:
        """Say why nothing was judged; empty if something was, or nobody asked."""
        outcomes = list(self._outcomes.values())
        if hasattr(config, "workerinput") or not runs_tests(config) or {"judged", "left"} & set(outcomes):
            return ""
        if self._is_elsewhere(config):
            return f"{config.stash[SESSION].shard} has none of the selected tests: nothing to judge here"
        if not outcomes:
            return "nothing was judged, because no reliability test was selected" if is_asked(config) else ""
        if "ran" in outcomes:
            return (
                "nothing was judged: no test called check(aspect) of its result, or read its verdicts, changes or "
                "coverage"
            )
        return "nothing was judged, because every reliability test was skipped; -m 'not qreliab' leaves them out"
