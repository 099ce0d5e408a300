"""The pytest hooks, thin. Nothing heavy is imported here: an idle plugin costs its options and no more."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qreliab.config import settings as config_settings
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.plugin import hookspecs, options

if TYPE_CHECKING:
    from pytest_qreliab.config.cases import Build, Case
    from pytest_qreliab.evaluation.evaluator import QuantizedClip
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.plugin.checked_result import CheckedResult, CheckedSelfCheck
    from pytest_qreliab.plugin.session import Session
    from pytest_qreliab.plugin.xdist import BuildScheduling
    from pytest_qreliab.report import self_check
    from pytest_qreliab.report.records import CaseRecord

SUITE = Path(__file__).parent / "suite" / "test_reliability.py"
SELF_CHECK_SUITE = SUITE.with_name("test_self_check.py")

# The arguments that are parametrized: a case, a quantized model to build, a model's name.
CASE, BUILD, MODEL = "qreliab_case", "_qreliab_build", "_qreliab_model"

SETTINGS = pytest.StashKey[config_settings.Settings]()
RUN = pytest.StashKey["Session"]()
SHIPPED = pytest.StashKey["list[str] | None"]()  # names to select of the shipped suite, [] for all; None: not run
RESULT = pytest.StashKey["CheckedResult"]()
SELF_CHECK = pytest.StashKey["CheckedSelfCheck"]()


# Set-up


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "qreliab(aspect=None): a reliability test; with an aspect (accuracy, calibration, robustness, ood, spectrum) "
        "it runs for the cases that have a gate of that aspect. Tests that use its fixtures get it by themselves.",
    )
    config.pluginmanager.register(Summary(config), "qreliab-summary")
    config.stash[SETTINGS] = settings = config_settings.resolve(config.getoption, config.getini)
    config.stash[SHIPPED] = _shipped(config)
    if settings.given or config.getoption("qreliab_aa"):
        _run(config)


def _shipped(config: pytest.Config) -> list[str] | None:
    """Which shipped tests the invocation asks for: by `qreliab` or `qreliab::NAME`, or by an option and no path."""
    if hasattr(config, "workerinput"):
        names: list[str] | None = config.workerinput["qreliab_shipped"]
        # Where no arguments are left, pytest has put in testpaths.
        config.args[:] = config.args if names is None else config.workerinput["qreliab_args"]
        return names
    if config.args_source is config.ArgsSource.ARGS:
        own = [arg for arg in config.args if arg.partition("::")[0] == "qreliab"]
        if not own or (config.invocation_params.dir / "qreliab").exists():
            return None
        config.args[:] = [arg for arg in config.args if arg not in own]
        return [] if "qreliab" in own else [arg.partition("::")[2] for arg in own]
    if all(config.getoption(option.ini) is None for option in config_settings.OPTIONS) and not config.getoption(
        "qreliab_aa"
    ):
        return None
    config.args[:] = [str(path) for path in config.getini(config_settings.TESTPATHS_INI)]
    return []


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: tell a worker what its own arguments no longer show."""
    node.workerinput["qreliab_shipped"] = node.config.stash[SHIPPED]
    node.workerinput["qreliab_args"] = [str(arg) for arg in node.config.args]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BuildScheduling | None:
    """pytest-xdist: our own scheduler, where there are cases and the user asked for no other than -n gives."""
    if RUN not in config.stash or config.getoption("dist") not in ("load", "worksteal"):
        return None
    from pytest_qreliab.plugin import xdist

    return xdist.make(config, log, config.stash[RUN].plan)


def _run(config: pytest.Config) -> Session:
    """The run's state; made at start where a setting is given, else by the first test that needs it."""
    if RUN not in config.stash:
        from pytest_qreliab.plugin.session import Session

        try:
            config.stash[RUN] = Session(config, config.stash[SETTINGS])
        except InputError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[RUN]


# Collection


class ShippedSuite(pytest.Module):
    """The shipped tests, collected wherever the package is installed and whatever the project's patterns are.

    The tests of an aspect that no case has a gate for are left out.
    """

    def istestfunction(self, obj: object, name: str) -> bool:
        aspects = [_aspect(mark) for mark in getattr(obj, "pytestmark", ()) if mark.name == "qreliab"]
        return any(_run(self.config).cases(aspect) for aspect in aspects)

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        found, wanted = list(super().collect()), self.config.stash[SHIPPED]
        if not wanted:
            return found
        names = {node: {node.name, node.name.partition("[")[0]} for node in found}
        for name in wanted:
            if name not in set().union(*names.values()):
                there = [f"qreliab::{node.name}" for node in found]
                raise self.CollectError(str(unknown("test", f"qreliab::{name}", there)))
        return [node for node in found if names[node] & set(wanted)]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if isinstance(collector, pytest.Session) and collector.config.stash[SHIPPED] is not None and report.passed:
        path = SELF_CHECK_SUITE if collector.config.getoption("qreliab_aa") else SUITE
        report.result.append(ShippedSuite.from_parent(collector, path=path, name="qreliab", nodeid="qreliab"))
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = [name for name in (CASE, BUILD, MODEL) if name in metafunc.fixturenames]
    if not wanted:
        return
    mark = metafunc.definition.get_closest_marker("qreliab")
    try:
        cases = _run(metafunc.config).cases(_aspect(mark) if mark else None)
    except InputError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from None
    rows: dict[str, list[object]] = {}
    for case in cases:
        names = {CASE: case.id, BUILD: case.build.id, MODEL: case.build.model}
        values = {CASE: case, BUILD: case.build, MODEL: case.build.model}
        rows.setdefault(names[wanted[0]], [values[name] for name in wanted])
    metafunc.parametrize(wanted, list(rows.values()), ids=list(rows))


def _aspect(mark: pytest.Mark) -> str | None:
    if mark.args or set(mark.kwargs) - {"aspect"}:
        raise InputError("the qreliab marker takes one keyword: @pytest.mark.qreliab(aspect=...)")
    aspect: str | None = mark.kwargs.get("aspect")
    return aspect


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark our tests, put them in the plan's order, in the places that they hold among the others, and deselect those
    of other shards."""
    places, ours = [], []
    for place, item in enumerate(items):
        params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        for name in (CASE, BUILD, MODEL):
            if name in params:
                item.add_marker("qreliab")
                places.append(place)
                ours.append((_run(config).position(params[name]), params[name], item))
                break
    elsewhere = set()
    for place, (_, value, item) in zip(places, sorted(ours, key=lambda found: found[0]), strict=True):
        items[place] = item
        if not _run(config).here(value):
            elsewhere.add(item)
    if elsewhere:
        config.hook.pytest_deselected(items=list(elsewhere))
        items[:] = [item for item in items if item not in elsewhere]


# Fixtures


@pytest.fixture
def qreliab_case() -> Case:
    """The case under test: model, quantizer, bits, scope and benchmark. The test runs once for each."""
    raise pytest.UsageError("qreliab_case is set by parametrization; it cannot be requested dynamically")


@pytest.fixture
def qreliab_result(request: pytest.FixtureRequest, qreliab_case: Case) -> CheckedResult:
    """The case measured against its baseline and judged; `check(aspect)` fails the test by its gates."""
    with _readable():
        result = _run(request.config).result(qreliab_case, request.node)
    request.node.stash[RESULT] = result
    return result


@pytest.fixture
def qreliab_self_check(request: pytest.FixtureRequest, qreliab_case: Case) -> CheckedSelfCheck:
    """The gates of the case, tried where there is nothing to find; `check()` fails the test if they fail too often."""
    with _readable():
        found = _run(request.config).self_check(qreliab_case, request.node)
    request.node.stash[SELF_CHECK] = found
    return found


@pytest.fixture
def quantized_clip(request: pytest.FixtureRequest, _qreliab_build: Build) -> QuantizedClip:
    """The quantized model on the device. The test runs once for each model, quantizer, bits and scope."""
    with _readable():
        return _run(request.config).evaluator.quantized(_qreliab_build)


@pytest.fixture
def baseline_clip(request: pytest.FixtureRequest, _qreliab_model: str) -> Clip:
    """The full-precision model on the device. The test runs once for each model."""
    with _readable():
        return _run(request.config).evaluator.baseline(_qreliab_model)


@contextmanager
def _readable() -> Iterator[None]:
    """Show what is wrong with the user's input as a message, without a traceback."""
    try:
        yield
    except InputError as error:
        message = str(error)
    else:
        return
    pytest.fail(message, pytrace=False)


# Reports


def pytest_report_header(config: pytest.Config) -> list[str]:
    return config.stash[RUN].header() if RUN in config.stash else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put a result on the report of the test that used it: plain scalars, which workers can send."""
    report = yield
    if call.when == "call" and SELF_CHECK in item.stash:
        report.qreliab_self_check = item.stash[SELF_CHECK].entry()  # type: ignore[attr-defined]
    if call.when == "call" and RESULT in item.stash:
        result = item.stash[RESULT]
        report.qreliab = _run(item.config).entry(result)  # type: ignore[attr-defined]
        mark = item.get_closest_marker("qreliab")
        item.user_properties += result.properties(_aspect(mark) if mark else None)
    if report.failed and CASE in getattr(getattr(item, "callspec", None), "params", {}):
        report.qreliab_case = item.callspec.params[CASE].id  # type: ignore[attr-defined]
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash and call.when == "call" and (SELF_CHECK in item.stash or RESULT in item.stash):
        # On CI pytest's short summary would print the whole explanation a second time.
        crash.message = crash.message.partition("\n")[0]
    if call.when == "teardown" and RESULT in item.stash:
        del item.stash[RESULT]  # which holds on to every sample
    return report


class Summary:
    """Gathers the results from the reports, wherever the tests ran, and prints the table."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._entries: dict[str, CaseRecord] = {}
        self._self_checks: dict[str, self_check.SelfCheckRecord] = {}
        self._errors: dict[str, str] = {}
        self._accepted: list[str] = []
        self._ran = False  # any test of ours

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._ran |= "qreliab" in report.keywords
        entry: CaseRecord | None = getattr(report, "qreliab", None)
        if entry is not None:
            self._entries[entry["case"]] = entry
        checked: self_check.SelfCheckRecord | None = getattr(report, "qreliab_self_check", None)
        if checked is not None:
            self._self_checks[checked["case"]] = checked
        case: str | None = getattr(report, "qreliab_case", None)
        if case is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = (crash.message if crash else str(report.longrepr)).strip()
            self._errors.setdefault(case, text.partition("\n")[0].removeprefix("Failed: "))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Renew the snapshot first, so that the summary can tell. Write the results after all else: the exit status is
        known, and the table is out if that fails."""
        run = self._config.stash.get(RUN, None)
        problem: Exception | None = None
        if run is not None and self._entries:
            try:
                self._accepted = run.renew(self._entries)
            except (OSError, InputError) as error:
                problem = error
        yield
        run = self._config.stash.get(RUN, None)  # which the summary may have made
        if run is None:
            return
        try:
            run.write(self._entries, self._errors, int(session.exitstatus))
        except OSError as error:
            problem = error
        if isinstance(problem, OSError):
            problem = InputError(f"{problem.filename} cannot be written: {problem.strerror}")
        if problem is not None:
            pytest.exit(f"qreliab: {problem}", pytest.ExitCode.USAGE_ERROR)

    def _annotated(self) -> bool:
        """Whether another plugin shows failures in GitHub's annotations."""
        return self._config.pluginmanager.has_plugin("pytest_github_actions_annotate_failures")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        """The table first, then pytest's own sections, which explain the failures."""
        if RUN in self._config.stash and not self._ran and not self._config.getoption("collectonly"):
            terminalreporter.write_line(
                "qreliab: settings are given, and no reliability test ran: pytest qreliab runs the shipped ones"
            )
        if self._entries or self._self_checks:
            from pytest_qreliab.report import terminal

            writer = terminalreporter._tw
            output = terminal.Output(
                writer.fullwidth,
                color=writer.hasmarkup,
                unicode=(getattr(writer._file, "encoding", None) or "").lower().startswith("utf"),
            )
            run = _run(self._config)  # which a controller has not made where no setting is given
            if self._entries:
                terminalreporter.section("reliability")
                entries = run.in_order(self._entries)
                terminalreporter.write_line(terminal.render(entries, output))
                for line in [*terminal.notes(entries), *self._accepted]:
                    terminalreporter.write_line(line)
                if os.environ.get("GITHUB_ACTIONS") == "true" and not self._annotated():
                    from pytest_qreliab.report import github

                    for line in github.commands(entries):
                        terminalreporter.write_line(line)
            if self._self_checks:
                from pytest_qreliab.report import self_check  # imports torch, which a controller else does without

                terminalreporter.section("self-check of the gates")
                terminalreporter.write_line(self_check.render(run.in_order(self._self_checks), output))
        yield
