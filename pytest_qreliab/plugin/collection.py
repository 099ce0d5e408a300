"""Collection: which reliability tests run, for which cases, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qreliab.config.settings import OPTIONS, TESTPATHS_INI
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.plugin.state import BUILD, CASE, MODEL, SHIPPED, get_session

if TYPE_CHECKING:
    from pytest_qreliab.config.cases import Build, Case

SUITE = Path(__file__).parent / "suite" / "test_reliability.py"
SELF_CHECK_SUITE = SUITE.with_name("test_self_check.py")


def take_shipped_tests(config: pytest.Config) -> list[str] | None:
    """Take the shipped tests that the invocation asks for out of pytest's arguments.

    The arguments `qreliab` and `qreliab::NAME` ask for them, and so does any option of the plugin without a path.

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
    options = (config.getoption(option.ini) for option in OPTIONS)
    if all(value is None for value in options) and not config.getoption("qreliab_aa"):
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
    if not wanted:
        return
    try:
        aspect = marked_aspect(metafunc.definition.get_closest_marker("qreliab"))
        cases = get_session(metafunc.config).cases(aspect)
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
    """Mark the reliability tests, sort them by the plan and deselect those of other shards.

    They keep, as a group, the places that they hold among the other tests.
    """
    collected = list(items)
    subjects = {place: subject for place, item in enumerate(items) if (subject := _subject(item)) is not None}
    if not subjects:
        return
    session = get_session(config)
    in_order = sorted(subjects, key=lambda place: session.position(subjects[place]))
    for place, source in zip(subjects, in_order, strict=True):
        items[place] = collected[source]
        items[place].add_marker("qreliab")
    elsewhere = {collected[place] for place in in_order if not session.in_shard(subjects[place])}
    if elsewhere:
        config.hook.pytest_deselected(items=[item for item in items if item in elsewhere])
        items[:] = [item for item in items if item not in elsewhere]


def _subject(item: pytest.Item) -> Case | Build | str | None:
    """Return the case, the build or the model that a test is parametrized with."""
    params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return next((params[name] for name in (CASE, BUILD, MODEL) if name in params), None)
