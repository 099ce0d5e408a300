"""Collection: which reliability tests run, for which cases, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qreliab.config.settings import TESTPATHS_INI
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.plugin.options import is_on_command_line, only_lists
from pytest_qreliab.plugin.state import BUILD, CASE, ELSEWHERE, MODEL, REFUSED, SESSION, SHIPPED, get_session

if TYPE_CHECKING:
    from pytest_qreliab.config.cases import Build, Case

SUITE = Path(__file__).parent / "suite" / "test_reliability.py"
SELF_CHECK_SUITE = SUITE.with_name("test_self_check.py")


def take_shipped_tests(config: pytest.Config) -> list[str] | None:
    """Take the shipped tests that the invocation asks for out of pytest's arguments.

    The arguments `qreliab` and `qreliab::NAME` ask for them, and so does any option of the plugin that the user typed
    without a path.

    Returns:
        Names of shipped tests, empty for all of them, or None if the invocation asks for none.
    """
    if hasattr(config, "workerinput"):
        names: list[str] | None = config.workerinput["qreliab_shipped"]
        # If no arguments are left, pytest has put in testpaths.
        config.args[:] = config.args if names is None else config.workerinput["qreliab_args"]
        return names
    if config.args_source is config.ArgsSource.ARGS:
        shipped = [arg for arg in config.args if arg.partition("::")[0] == "qreliab"]
        if not shipped or (config.invocation_params.dir / "qreliab").exists():
            return None
        config.args[:] = [arg for arg in config.args if arg not in shipped]
        return [] if "qreliab" in shipped else [arg.partition("::")[2] for arg in shipped]
    if not is_on_command_line(config):
        return None
    config.args[:] = [str(path) for path in config.getini(TESTPATHS_INI)]
    return []


def shipped_suite(session: pytest.Session) -> ShippedSuite:
    """Return the collector of the shipped tests, or of the self-check in their place."""
    path = SELF_CHECK_SUITE if session.config.getoption("qreliab_aa") else SUITE
    suite: ShippedSuite = ShippedSuite.from_parent(session, path=path, name="qreliab", nodeid="qreliab")
    return suite


class ShippedSuite(pytest.Module):
    """The shipped tests, wherever the package is installed and whatever the project's patterns are."""

    def istestfunction(self, obj: object, name: str) -> bool:
        """Return whether a case has a gate of the function's aspect."""
        if only_lists(self.config):
            return super().istestfunction(obj, name)
        aspects = [marked_aspect(mark) for mark in getattr(obj, "pytestmark", ()) if mark.name == "qreliab"]
        return any(get_session(self.config).cases(aspect) for aspect in aspects)

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Collect the tests that the invocation names, or all of them."""
        nodes, wanted = list(super().collect()), self.config.stash[SHIPPED]
        if not wanted:
            return nodes
        names = {node: {node.name, node.name.partition("[")[0]} for node in nodes}
        for name in wanted:
            if name not in set().union(*names.values()):
                valid = [f"qreliab::{node.name}" for node in nodes]
                raise self.CollectError(str(unknown("test", f"qreliab::{name}", valid)))
        return [node for node in nodes if names[node] & set(wanted)]


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test over the cases, the builds or the models of the plan, whichever its fixtures need."""
    wanted = [name for name in (CASE, BUILD, MODEL) if name in metafunc.fixturenames]
    if not wanted or only_lists(metafunc.config):
        return
    try:
        aspect = marked_aspect(metafunc.definition.get_closest_marker("qreliab"))
        cases = get_session(metafunc.config).cases(aspect)
    except pytest.UsageError:
        return  # it ends the run in `arrange`, once for all tests
    except InputError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from None
    rows: dict[str, list[object]] = {}
    for case in cases:
        ids = {CASE: case.id, BUILD: case.build.id, MODEL: case.build.model}
        values = {CASE: case, BUILD: case.build, MODEL: case.build.model}
        rows.setdefault(ids[wanted[0]], [values[name] for name in wanted])
    metafunc.parametrize(wanted, list(rows.values()), ids=list(rows))


def marked_aspect(mark: pytest.Mark | None) -> str | None:
    """Return the aspect that a marker `qreliab` names, or None without a marker or an aspect.

    Raises:
        InputError: The marker has other arguments.
    """
    if mark is None:
        return None
    if mark.args or set(mark.kwargs) - {"aspect"}:
        raise InputError("the qreliab marker takes one keyword: @pytest.mark.qreliab(aspect=...)")
    aspect: str | None = mark.kwargs.get("aspect")
    return aspect


def arrange(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the reliability tests and sort them by the plan.

    They keep, as a group, the places that they hold among the other tests.

    Raises:
        pytest.UsageError: There are reliability tests, and the settings cannot be used.
    """
    if REFUSED in config.stash:
        if not hasattr(config, "workerinput"):
            raise pytest.UsageError(config.stash[REFUSED])
        _tell_controller(config, qreliab_refused=config.stash[REFUSED])  # which ends the run
        items.clear()
    collected = list(items)
    subjects = _subjects(items)
    if not subjects:
        return
    session = get_session(config)
    in_order = sorted(subjects, key=lambda place: session.position(subjects[place]))
    for place, source in zip(subjects, in_order, strict=True):
        items[place] = collected[source]
        items[place].add_marker("qreliab")


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the reliability tests of other shards, after all other selection."""
    subjects = _subjects(items)
    if not subjects:
        return
    session = get_session(config)
    elsewhere = {items[place] for place, subject in subjects.items() if not session.in_shard(subject)}
    if elsewhere:
        config.hook.pytest_deselected(items=[item for item in items if item in elsewhere])
        items[:] = [item for item in items if item not in elsewhere]
    if len(elsewhere) == len(subjects):
        config.stash[ELSEWHERE] = True
        if hasattr(config, "workerinput"):
            _tell_controller(config, qreliab_elsewhere=True)


def begin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin the run if any reliability test is selected, or other shards have them."""
    if SESSION in config.stash and (ELSEWHERE in config.stash or _subjects(items)):
        config.stash[SESSION].begin()
        if hasattr(config, "workerinput"):
            _tell_controller(config, qreliab_begun=True)


def announcement(config: pytest.Config) -> list[str]:
    """Return the lines that say what the run will do; none without a session."""
    if SESSION not in config.stash:
        return []
    from pytest_qreliab.config.text_forms import printable
    from pytest_qreliab.plugin.header import header_lines

    session = config.stash[SESSION]
    return [printable(line) for line in header_lines(session.plan, shard=session.shard, snapshot=session.snapshot)]


def _tell_controller(config: pytest.Config, **facts: object) -> None:
    """Send facts to the controller of pytest-xdist, at the end of this worker."""
    config.workeroutput.update(facts)  # type: ignore[attr-defined]


def _subjects(items: list[pytest.Item]) -> dict[int, Case | Build | str]:
    """Return the case, the build or the model of each reliability test, by its place."""
    return {place: subject for place, item in enumerate(items) if (subject := find_subject(item)) is not None}


def find_subject(item: pytest.Item) -> Case | Build | str | None:
    """Return the case, the build or the model that a test is parametrized with."""
    params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return next((params[name] for name in (CASE, BUILD, MODEL) if name in params), None)
