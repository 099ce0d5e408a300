"""The way of results from the tests to the summary: onto reports, between processes, and to the terminal."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_qreliab.config.cases import Case
from pytest_qreliab.plugin.collection import find_subject, marked_aspect
from pytest_qreliab.plugin.judged import Judged
from pytest_qreliab.plugin.outputs import explain_failure
from pytest_qreliab.plugin.state import CHECK, PROBLEM, PROPERTIES, SELF_CHECK, SESSION, get_session

if TYPE_CHECKING:
    from pytest_qreliab.plugin.case_check import CaseCheck, CaseSelfCheck
    from pytest_qreliab.report.records import CaseRecord
    from pytest_qreliab.report.self_check import SelfCheckRecord
    from pytest_qreliab.report.terminal import Output


def attach_results(item: pytest.Item, when: str, report: pytest.TestReport) -> None:
    """Put the result that a test used on its report, as plain scalars, which workers can send."""
    subject = find_subject(item)
    if subject is None:
        return
    check, self_check = item.stash.get(CHECK, None), item.stash.get(SELF_CHECK, None)
    if when == "call":
        _mark_judged(report, check or self_check)
        if self_check is not None:
            report.qreliab_self_check = self_check.record()  # type: ignore[attr-defined]
        if check is not None:
            report.qreliab = get_session(item.config).new_record(check.result)  # type: ignore[attr-defined]
            _replace_properties(item, check.properties(marked_aspect(item.get_closest_marker("qreliab"))))
    if report.failed and isinstance(subject, Case):
        report.qreliab_case = subject.id  # type: ignore[attr-defined]
        report.qreliab_problem = item.stash.get(PROBLEM, None)  # type: ignore[attr-defined]
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash and when == "call" and (check or self_check):
        # On CI pytest's short summary would print the whole explanation a second time.
        crash.message = crash.message.partition("\n")[0]
    if when == "teardown" and check is not None:
        del item.stash[CHECK]  # it holds on to every sample


def _mark_judged(report: pytest.TestReport, check: CaseCheck | CaseSelfCheck | None) -> None:
    """Say on the report whether the test judged anything: a result that it looked at, or a model by itself."""
    skipped = report.skipped and not hasattr(report, "wasxfail")
    report.qreliab_judged = not skipped and (check is None or check.judged)  # type: ignore[attr-defined]


def _replace_properties(item: pytest.Item, properties: list[tuple[str, object]]) -> None:
    """Give a test properties, in place of those of an earlier run of the same test."""
    earlier = item.stash.get(PROPERTIES, [])
    item.user_properties[:] = [*(pair for pair in item.user_properties if pair not in earlier), *properties]
    item.stash[PROPERTIES] = properties


class Summary:
    """The plugin that gathers results from reports, wherever the tests ran, and prints the table."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._records: dict[str, CaseRecord] = {}
        self._self_checks: dict[str, SelfCheckRecord] = {}
        self._errors: dict[str, str] = {}
        self._snapshot_lines: list[str] = []
        self._verdicts = Judged()
        self._problems: list[str] = []  # what could not be printed or written

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what `attach_results` put on a report."""
        self._verdicts.note(report)
        record: CaseRecord | None = getattr(report, "qreliab", None)
        if record is not None:
            self._records[record["case"]] = record
        self_check: SelfCheckRecord | None = getattr(report, "qreliab_self_check", None)
        if self_check is not None:
            self._self_checks[self_check["case"]] = self_check
        case: str | None = getattr(report, "qreliab_case", None)
        if case is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = getattr(report, "qreliab_problem", None) or (crash.message if crash else str(report.longrepr))
            self._errors.setdefault(case, text.strip().partition("\n")[0].removeprefix("Failed: "))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Renew the snapshot before the summary, which shows it, and write the results at the very end.

        Then the exit status is known, and the table is out even if a file cannot be written.
        """
        if SESSION in self._config.stash and self._records:
            from pytest_qreliab.plugin.outputs import renew_snapshot

            with self._noting("the snapshot"):
                self._snapshot_lines = renew_snapshot(self._config.stash[SESSION], self._records)
        session.exitstatus = self._verdicts.exit_status(self._config, session.exitstatus)
        yield
        # The summary may have made the session in the meantime.
        if SESSION in self._config.stash and self._config.stash[SESSION].begun:
            from pytest_qreliab.plugin.outputs import write_outputs

            run = self._config.stash[SESSION]
            self._problems += write_outputs(run, self._records, self._errors, int(session.exitstatus))
        if self._problems:
            pytest.exit("\n".join(f"qreliab: {text}" for text in self._problems), pytest.ExitCode.USAGE_ERROR)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> Generator[None, None, None]:
        """Print the tables before pytest's own sections, which explain the failures."""
        if self._records:
            with self._noting("the table"):
                self._print_records(terminalreporter)
        if self._self_checks:
            with self._noting("the table"):
                self._print_self_checks(terminalreporter)
        yield
        # A run that an error ended has said why it judged nothing.
        ended = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
        for line in [*([] if ended else self._verdicts.lines(self._config)), *self._skipped()]:
            terminalreporter.write_line(line)

    def _skipped(self) -> list[str]:
        """Return the line that says how many gates were not judged, at the very end, where `-q` shows it as well."""
        if not self._records:
            return []
        from pytest_qreliab.report.queries import count_skipped

        skipped = count_skipped(self._records.values())
        return [f"qreliab: {skipped}"] if skipped else []

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Keep an error for the end, so that what comes after it is still printed and written."""
        try:
            yield
        except Exception as error:  # of any kind: a table must not cost the results
            self._problems.append(explain_failure(what, error))

    def _print_records(self, terminalreporter: pytest.TerminalReporter) -> None:
        from pytest_qreliab.report import terminal

        # A controller has not made the session yet if no setting is given.
        records = get_session(self._config).in_order(self._records)
        terminalreporter.section("reliability")
        terminalreporter.write_line(terminal.render(records, _output(terminalreporter)))
        lines = [*terminal.notes(records), terminal.cost(records), *self._snapshot_lines]
        annotates = self._config.pluginmanager.has_plugin("pytest_github_actions_annotate_failures")
        if os.environ.get("GITHUB_ACTIONS") == "true" and not annotates:
            from pytest_qreliab.report import github

            lines += github.commands(records)
        for line in lines:
            terminalreporter.write_line(line)

    def _print_self_checks(self, terminalreporter: pytest.TerminalReporter) -> None:
        from pytest_qreliab.report import self_check

        terminalreporter.section("self-check of the gates")
        records = get_session(self._config).in_order(self._self_checks)
        terminalreporter.write_line(self_check.render(records, _output(terminalreporter)))


def _output(terminalreporter: pytest.TerminalReporter) -> Output:
    """Return what rich needs to know of pytest's terminal."""
    from pytest_qreliab.report.terminal import Output

    writer = terminalreporter._tw
    return Output(
        writer.fullwidth,
        color=writer.hasmarkup,
        unicode=(getattr(writer._file, "encoding", None) or "").lower().startswith("utf"),
    )
