"""The way of results from the tests to the summary: onto reports, between processes, and to the terminal."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.plugin.collection import marked_aspect
from pytest_qreliab.plugin.state import CASE, CHECK, SELF_CHECK, SESSION, get_session

if TYPE_CHECKING:
    from pytest_qreliab.report.records import CaseRecord
    from pytest_qreliab.report.self_check import SelfCheckRecord
    from pytest_qreliab.report.terminal import Output


def attach_results(item: pytest.Item, when: str, report: pytest.TestReport) -> None:
    """Put the result that a test used on its report, as plain scalars, which workers can send."""
    if when == "call" and SELF_CHECK in item.stash:
        report.qreliab_self_check = item.stash[SELF_CHECK].record()  # type: ignore[attr-defined]
    if when == "call" and CHECK in item.stash:
        check = item.stash[CHECK]
        report.qreliab = get_session(item.config).new_record(check.result)  # type: ignore[attr-defined]
        item.user_properties += check.properties(marked_aspect(item.get_closest_marker("qreliab")))
    if report.failed and CASE in getattr(getattr(item, "callspec", None), "params", {}):
        report.qreliab_case = item.callspec.params[CASE].id  # type: ignore[attr-defined]
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash and when == "call" and (SELF_CHECK in item.stash or CHECK in item.stash):
        # On CI pytest's short summary would print the whole explanation a second time.
        crash.message = crash.message.partition("\n")[0]
    if when == "teardown" and CHECK in item.stash:
        del item.stash[CHECK]  # it holds on to every sample


class Summary:
    """The plugin that gathers results from reports, wherever the tests ran, and prints the table."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._records: dict[str, CaseRecord] = {}
        self._self_checks: dict[str, SelfCheckRecord] = {}
        self._errors: dict[str, str] = {}
        self._snapshot_lines: list[str] = []
        self._any_ran = False  # whether any reliability test did

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what `attach_results` put on a report."""
        self._any_ran |= "qreliab" in report.keywords
        record: CaseRecord | None = getattr(report, "qreliab", None)
        if record is not None:
            self._records[record["case"]] = record
        self_check: SelfCheckRecord | None = getattr(report, "qreliab_self_check", None)
        if self_check is not None:
            self._self_checks[self_check["case"]] = self_check
        case: str | None = getattr(report, "qreliab_case", None)
        if case is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = (crash.message if crash else str(report.longrepr)).strip()
            self._errors.setdefault(case, text.partition("\n")[0].removeprefix("Failed: "))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Renew the snapshot before the summary, which shows it, and write the results at the very end.

        Then the exit status is known, and the table is out even if a file cannot be written.
        """
        problem: Exception | None = None
        if SESSION in self._config.stash and self._records:
            from pytest_qreliab.plugin.outputs import renew_snapshot

            try:
                self._snapshot_lines = renew_snapshot(self._config.stash[SESSION], self._records)
            except (OSError, InputError) as error:
                problem = error
        yield
        if SESSION not in self._config.stash:  # the summary may have made it in the meantime
            return
        from pytest_qreliab.plugin.outputs import write_outputs

        try:
            write_outputs(self._config.stash[SESSION], self._records, self._errors, int(session.exitstatus))
        except OSError as error:
            problem = error
        if isinstance(problem, OSError):
            problem = InputError(f"{problem.filename} cannot be written: {problem.strerror}")
        if problem is not None:
            pytest.exit(f"qreliab: {problem}", pytest.ExitCode.USAGE_ERROR)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        """Print the tables before pytest's own sections, which explain the failures."""
        if SESSION in self._config.stash and not self._any_ran and not self._config.getoption("collectonly"):
            terminalreporter.write_line(
                "qreliab: settings are given, and no reliability test ran: pytest qreliab runs the shipped ones"
            )
        if self._records:
            self._print_records(terminalreporter)
        if self._self_checks:
            from pytest_qreliab.report import self_check

            terminalreporter.section("self-check of the gates")
            records = get_session(self._config).in_order(self._self_checks)
            terminalreporter.write_line(self_check.render(records, _output(terminalreporter)))
        yield

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


def _output(terminalreporter: pytest.TerminalReporter) -> Output:
    """Return what rich needs to know of pytest's terminal."""
    from pytest_qreliab.report.terminal import Output

    writer = terminalreporter._tw
    return Output(
        writer.fullwidth,
        color=writer.hasmarkup,
        unicode=(getattr(writer._file, "encoding", None) or "").lower().startswith("utf"),
    )
