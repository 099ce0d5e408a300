"""The pytest hooks: the entry point of the plugin.

Nothing heavy is imported here, so that an idle plugin costs its options and no more.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qreliab.plugin import collection, hookspecs, options
from pytest_qreliab.plugin.fixtures import (  # noqa: F401  pytest finds fixtures in the namespace of a plugin
    baseline_clip,
    qreliab_case,
    qreliab_result,
    qreliab_self_check,
    quantized_clip,
)
from pytest_qreliab.plugin.options import settings_are_given
from pytest_qreliab.plugin.state import SESSION, SHIPPED, get_session, is_asked
from pytest_qreliab.plugin.summary import Summary, attach_results

if TYPE_CHECKING:
    from pytest_qreliab.plugin.xdist import BuildScheduling


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that this plugin calls."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Make the session if the invocation asks for reliability tests; otherwise a collected test may do so."""
    config.addinivalue_line(
        "markers",
        "qreliab(aspect=None): a reliability test; with an aspect (accuracy, calibration, robustness, ood, spectrum) "
        "it runs only for cases with a gate of that aspect. Tests that use the plugin's fixtures are marked by it.",
    )
    config.pluginmanager.register(Summary(config), "qreliab-summary")
    config.stash[SHIPPED] = collection.take_shipped_tests(config)
    if is_asked(config):
        get_session(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send a worker of pytest-xdist what its own arguments no longer show."""
    node.workerinput["qreliab_asked"] = is_asked(node.config)
    node.workerinput["qreliab_shipped"] = node.config.stash[SHIPPED]
    session = node.config.stash.get(SESSION, None)
    node.workerinput["qreliab_commits"] = {} if session is None else session.hub.commits
    node.workerinput["qreliab_args"] = [str(arg) for arg in node.config.args]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BuildScheduling | None:
    """Make the plugin's scheduler if the invocation asks for cases and for no other scheduler than `-n` implies."""
    if config.getoption("dist") not in ("load", "worksteal") or SESSION not in config.stash:
        return None
    from pytest_qreliab.plugin import xdist

    return xdist.make_scheduler(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Begin the run if a worker of pytest-xdist has collected reliability tests."""
    if SESSION in node.config.stash or settings_are_given(node.config):
        from pytest_qreliab.plugin import controller

        controller.begin(node.config, ids)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """End the run if a worker of pytest-xdist could not make its session."""
    from pytest_qreliab.plugin import controller

    controller.take_over(node)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Announce what the run will do, if the invocation asks for reliability tests."""
    return collection.announcement(config)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Announce what the run will do, if only the collected tests ask for it."""
    if is_asked(config) or SESSION not in config.stash or config.getoption("verbose") < 0:
        return []
    return collection.announcement(config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Add the shipped suite to what is collected, if the invocation asks for it."""
    report = yield
    if isinstance(collector, pytest.Session) and collector.config.stash[SHIPPED] is not None and report.passed:
        report.result.append(collection.shipped_suite(collector))
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test that uses a fixture of the plugin."""
    collection.parametrize(metafunc)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    """Put the tests of the plugin in the order of its plan, and at last deselect those of other shards."""
    collection.arrange(config, items)
    yield
    collection.select(config, items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin the run if any reliability test is selected."""
    collection.begin(session.config, session.items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the result of a case on the report of the test that used it."""
    report = yield
    attach_results(item, call.when, report)
    return report
