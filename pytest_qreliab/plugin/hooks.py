"""The pytest hooks: the entry point of the plugin.

Nothing heavy is imported here, so that an idle plugin costs its options and no more.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_qreliab.config.settings import resolve
from pytest_qreliab.plugin import collection, hookspecs, options
from pytest_qreliab.plugin.fixtures import (  # noqa: F401  pytest finds fixtures in the namespace of a plugin
    baseline_clip,
    qreliab_case,
    qreliab_result,
    qreliab_self_check,
    quantized_clip,
)
from pytest_qreliab.plugin.state import SESSION, SETTINGS, SHIPPED, get_session
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
    """Read the settings, and make the session if the user gave any that it needs."""
    config.addinivalue_line(
        "markers",
        "qreliab(aspect=None): a reliability test; with an aspect (accuracy, calibration, robustness, ood, spectrum) "
        "it runs only for cases with a gate of that aspect. Tests that use the plugin's fixtures are marked by it.",
    )
    config.pluginmanager.register(Summary(config), "qreliab-summary")
    config.stash[SETTINGS] = settings = resolve(config.getoption, config.getini)
    config.stash[SHIPPED] = collection.take_shipped_tests(config)
    if settings.given or config.getoption("qreliab_aa"):
        get_session(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send a worker of pytest-xdist what its own arguments no longer show."""
    node.workerinput["qreliab_shipped"] = node.config.stash[SHIPPED]
    node.workerinput["qreliab_args"] = [str(arg) for arg in node.config.args]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BuildScheduling | None:
    """Make the plugin's scheduler if there are cases and the user chose no other than `-n` implies."""
    if SESSION not in config.stash or config.getoption("dist") not in ("load", "worksteal"):
        return None
    from pytest_qreliab.plugin import xdist

    return xdist.make_scheduler(config, log, config.stash[SESSION].plan)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Announce what the run will do, if settings are given."""
    if SESSION not in config.stash:
        return []
    from pytest_qreliab.plugin.header import header_lines

    session = config.stash[SESSION]
    return header_lines(session.plan, shard=session.shard, snapshot=session.snapshot)


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests of the plugin in the order of its plan, and deselect those of other shards."""
    collection.arrange(config, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the result of a case on the report of the test that used it."""
    report = yield
    attach_results(item, call.when, report)
    return report
