"""The controller of pytest-xdist, which collects no tests: what it learns from its workers."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_qreliab.plugin import collection
from pytest_qreliab.plugin.state import ELSEWHERE, SESSION, get_session, is_asked
from pytest_qreliab.plugin.subjects import Subjects, may_be_of_cases


def begin(config: pytest.Config, nodeids: list[str]) -> None:
    """Begin the run if a worker has collected reliability tests, and tell the scheduler of the plan.

    Args:
        config: The controller's.
        nodeids: The ids of the collected tests.
    """
    if SESSION not in config.stash:
        if not may_be_of_cases(nodeids):
            return
        try:
            get_session(config)
        except pytest.UsageError:
            return  # a worker with reliability tests says so itself
    session = config.stash[SESSION]
    if session.begun or not any(map(Subjects(session.plan).find, nodeids)):
        return
    session.begin()
    from pytest_qreliab.plugin import xdist  # imports the planning, which this run has made use of

    scheduler = config.pluginmanager.get_plugin("qreliab-scheduler") or xdist.replace_scheduler(config)
    if scheduler is not None:
        scheduler.learn(session.plan)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not is_asked(config) and config.getoption("verbose") >= 0:
        for line in collection.announcement(config):
            reporter.write_line(line)


def take_over(node: Any) -> None:
    """Take over what a worker knows when it ends.

    Raises:
        pytest.UsageError: The worker has reliability tests, and the settings cannot be used.
    """
    output = getattr(node, "workeroutput", None) or {}
    if "qreliab_refused" in output:
        raise pytest.UsageError(output["qreliab_refused"])
    if "qreliab_elsewhere" in output:
        node.config.stash[ELSEWHERE] = True
    if "qreliab_begun" in output:  # the ids of its tests need not have told
        get_session(node.config).begin()
