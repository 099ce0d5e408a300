"""The scheduler for pytest-xdist: all tests of one quantized model go to one worker."""

from __future__ import annotations

import copy
import signal
import subprocess
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling, LoadScopeScheduling, WorkStealingScheduling
from xdist.workermanage import WorkerController

from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.plugin.subjects import Subjects


class BuildScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """The scheduler that hands out the tests of whole quantized models, in the plan's order.

    The scope of a test is its quantized model, or its full-precision model if it uses that alone. Any other test is a
    scope of its own. A worker stays with a full-precision model, and begins with one that no other worker has if there
    is one. Neighbours in the plan share their full-precision model.

    When a worker dies, the tests of the case that it measured fail with it. Its other tests go on elsewhere. The
    scheduler is a plugin of the controller as well, to report that.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # which would sort by the number of tests
        self._subjects = Subjects(None)
        self._died_with: list[str] = []
        self._crashed = False

    def learn(self, plan: Plan) -> None:
        """Take the plan, before anything is handed out."""
        self._subjects = Subjects(plan)

    def subject(self, nodeid: str) -> str | None:
        """Return the id of the case, build or model of a test; None for a test that is not the plugin's."""
        return self._subjects.find(nodeid)

    def _split_scope(self, nodeid: str) -> str:
        subject = self.subject(nodeid)
        return nodeid if subject is None else self._subjects.scopes[subject]

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Assign the next unit of the node's model, else the next that no other node is at work on, else the next."""
        if len(set(self._subjects.models.values())) > 1:
            mine = self._model(node)
            others = {self._model(other) for other in self.nodes if other is not node} - {None}

            def rank(scope: str) -> int:
                model = self._subjects.models.get(scope)
                return 2 if model in others - {mine} else 0 if model is not None and model == mine else 1

            self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
        super()._assign_work_unit(node)

    def _model(self, node: WorkerController) -> str | None:
        """Return the model of the plugin's unit that a node was given last."""
        scopes = reversed(self.assigned_work[node])
        return next((self._subjects.models[scope] for scope in scopes if scope in self._subjects.models), None)

    def _reschedule(self, node: WorkerController) -> None:
        if node not in self.registered_collections:  # it replaces one that died, and is not ready yet
            return
        super()._reschedule(node)
        # A worker starts a test when it knows the next, or that there is none.
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Remove a node, and return the test that it died in.

        Neither that test nor another of its case is given to other nodes.
        """
        workload = self.assigned_work.pop(node)
        pending: list[str] = [nodeid for unit in workload.values() for nodeid, done in unit.items() if not done]
        if not pending:
            return None
        self._crashed = True
        crashed, subject = pending[0], self.subject(pending[0])
        self._died_with = [nodeid for nodeid in pending[1:] if subject is not None and self.subject(nodeid) == subject]
        for scope, unit in workload.items():
            unit.update((nodeid, True) for nodeid in (crashed, *self._died_with) if nodeid in unit)
            if not all(unit.values()):
                self.workqueue[scope] = unit
        for other in self.nodes:
            self._reschedule(other)
        return crashed

    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Explain why a worker died, and report the tests that died with it."""
        subject = self.subject(crashitem)
        if subject is None:
            return
        node: Any = report.node
        report.qreliab_case = subject  # type: ignore[attr-defined]
        report.longrepr = f"worker {node.gateway.id} crashed while it measured {subject}{_cause(node)}"
        for nodeid in (crashitem, *self._died_with):
            test_report = report if nodeid == crashitem else copy.copy(report)
            path, _, name = nodeid.partition("::")
            test_report.nodeid, test_report.location = nodeid, (path, None, name)
            if test_report is not report:
                self.config.hook.pytest_runtest_logreport(report=test_report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the tests that no worker was left to run."""
        left = [*self.workqueue.values(), *(unit for units in self.assigned_work.values() for unit in units.values())]
        tests = [nodeid for unit in left for nodeid, done in unit.items() if not done]
        if self._crashed and tests:
            terminalreporter.section("not run, for want of workers")
            for nodeid in tests:
                terminalreporter.write_line(nodeid)


def _cause(node: Any) -> str:
    """Return the signal that ended a worker, if it can be known, and what most often sends it."""
    try:
        name = signal.Signals(-node.gateway._io.popen.wait(1)).name
    except (AttributeError, ValueError, subprocess.TimeoutExpired):  # a worker elsewhere, or that ended by itself
        return ""
    hint = (
        "; out of memory? Fewer workers (-n) or more machines (--qreliab-shard) need less" if name == "SIGKILL" else ""
    )
    return f": {name}{hint}"


def replace_scheduler(config: pytest.Config) -> BuildScheduling | None:
    """Put the plugin's scheduler in place of that which `-n` implies, before any test is handed out.

    Returns:
        The scheduler; None if the user chose another one.
    """
    session = config.pluginmanager.get_plugin("dsession")
    if session is None or type(session.sched) not in (LoadScheduling, WorkStealingScheduling):
        return None
    made = make_scheduler(config, session.log)
    for node in session.sched.nodes:
        made.add_node(node)
    session.sched = made
    return made


def make_scheduler(config: pytest.Config, log: Producer) -> BuildScheduling:
    """Return the scheduler of a run, after registering it as a plugin."""
    scheduler = BuildScheduling(config, log)
    config.pluginmanager.register(scheduler, "qreliab-scheduler")
    return scheduler
