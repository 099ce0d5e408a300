"""The scheduler for pytest-xdist, on workers that are not there."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, LoadScheduling, WorkStealingScheduling

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.formats import Format
from pytest_qreliab.plugin.xdist import BuildScheduling, replace_scheduler


def plan_of(*models: str):
    widths = (Format.integers(8), Format.integers(4), Format.integers(4, 8))
    cases = [
        Case(
            Build(
                model=model,
                quantizer="minmax",
                bits=bits,
                scope="both",
                calibration=benchmark if bits.activations else None,
            ),
            benchmark,
        )
        for model in models
        for bits in widths
        for benchmark in ("digits", "digits-full")
    ]
    return SimpleNamespace(cases=cases)


class Node:
    """A worker as the scheduler sees it: it starts a test when it knows the next, or that there is none."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.given: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices):
        assert indices
        self.given += indices

    def shutdown(self):
        self.shutting_down = True

    def ready(self) -> bool:
        return len(self.given) > 1 or (self.shutting_down and bool(self.given))


def scheduler(plan, count: int) -> BuildScheduling:
    config = SimpleNamespace(
        getvalue={"tx": ["popen"] * count}.__getitem__, option=SimpleNamespace(loadscopereorder=True)
    )
    made = BuildScheduling(config, Producer("", enabled=False))
    made.learn(plan)
    return made


@pytest.mark.parametrize(
    ("nodeid", "subject", "scope"),
    [
        ("qreliab::test_ood[a/minmax/w4/digits]", "a/minmax/w4/digits", "a/minmax/w4"),
        ("qreliab::test_ood[a/minmax/w4a8/digits-full]", "a/minmax/w4a8/digits-full", "a/minmax/w4a8/digits-full"),
        ("[x]/t.py::T::test_it[1-a/minmax/w4/digits-full-b-2]", "a/minmax/w4/digits-full", "a/minmax/w4"),
        ("t.py::test_it[a-a/minmax/w4/digits-a]", "a/minmax/w4/digits", "a/minmax/w4"),
        ("t.py::test_build[a/minmax/w8]", "a/minmax/w8", "a/minmax/w8"),
        ("t.py::test_baseline[a-0.5]", "a", "a"),
        ("t.py::test_theirs[a/minmax/w4/letters]", None, "t.py::test_theirs[a/minmax/w4/letters]"),
        ("a-a/t.py::test_theirs", None, "a-a/t.py::test_theirs"),
    ],
)
def test_the_scope_of_a_test_is_its_build(nodeid, subject, scope):
    found = scheduler(plan_of("a"), 1)
    assert found.subject(nodeid) == subject
    assert found._split_scope(nodeid) == scope


def simulated(plan, tests: list[str], count: int, deadly: frozenset[str] = frozenset()):
    """What ran where, and what died: (test, worker) in order, and tests."""
    found = scheduler(plan, count)
    ran: list[tuple[str, str]] = []
    died: list[str] = []

    def join(name: str) -> Node:
        found.add_node(node := Node(name))
        return node

    def collect(node: Node) -> None:
        found.add_node_collection(node, tests)
        if found.collection_is_completed:
            found.schedule()

    nodes = [join(f"gw{index}") for index in range(count)]
    for node in nodes:
        collect(node)
    joining: list[Node] = []
    while any(node.ready() for node in nodes) or joining:
        for node in [node for node in nodes if node.ready()]:
            test = tests[node.given[0]]
            if test in deadly:
                assert found.remove_node(node) == test
                died += [test, *found._died_with]
                nodes.remove(node)
                joining.append(join(f"gw{count + len(joining)}"))
            else:
                found.mark_test_complete(node, node.given.pop(0))
                ran.append((test, node.gateway.id))
        if joining and (len(joining) > 1 or not any(node.ready() for node in nodes)):
            nodes.append(joining.pop())
            collect(nodes[-1])
        if found.tests_finished:
            for node in nodes:
                node.shutdown()
    return ran, died


THEIRS = [f"t.py::test_theirs[{index}]" for index in range(4)]


def ours(plan, aspects: int) -> list[str]:
    return [f"qreliab::test_{aspect}[{case.id}]" for case in plan.cases for aspect in "abcd"[:aspects]]


@given(
    st.integers(1, 4), st.integers(1, 4), st.sampled_from([("a",), ("a", "b-c", "b")]), st.booleans(), st.data()
)  # fmt: skip
def test_every_test_runs_once_or_dies_once(count, aspects, models, first, data):
    plan = plan_of(*models)
    tests = THEIRS + ours(plan, aspects) if first else ours(plan, aspects) + THEIRS
    deadly = data.draw(st.frozensets(st.sampled_from(tests), max_size=4))
    ran, died = simulated(plan, tests, count, deadly)
    assert Counter([test for test, _ in ran] + died) == Counter(tests)
    subject = scheduler(plan, 1).subject
    assert {subject(test) for test in died} <= {subject(test) for test in deadly}
    if not deadly:
        builds = {(subject(test).rpartition("/")[0], who) for test, who in ran if "w4a8" not in test and subject(test)}
        assert len(builds) == 2 * len(models)


def test_workers_begin_with_different_models_and_stay_with_them():
    plan = plan_of("a", "b")
    ran, _ = simulated(plan, ours(plan, 4), 2)
    assert {(test.partition("[")[2][0], worker) for test, worker in ran} == {("a", "gw0"), ("b", "gw1")}
    assert [test for test, worker in ran if worker == "gw0"] == ours(plan_of("a"), 4)


@pytest.mark.parametrize("chosen", [LoadScheduling, WorkStealingScheduling, LoadFileScheduling, None])
def test_the_scheduler_takes_the_place_of_the_usual_ones_with_their_workers(chosen):
    options = SimpleNamespace(loadscopereorder=True)
    plugins: dict = {}
    config = SimpleNamespace(
        getvalue={"tx": ["popen"] * 2}.__getitem__,
        getoption={"maxschedchunk": None}.__getitem__,
        option=options,
        pluginmanager=SimpleNamespace(
            get_plugin=plugins.get, register=lambda plugin, name: plugins.setdefault(name, plugin)
        ),
    )
    if chosen is not None:
        log = Producer("", enabled=False)
        plugins["dsession"] = SimpleNamespace(log=log, sched=chosen(config, log))
        plugins["dsession"].sched.add_node(Node("gw0"))
    made = replace_scheduler(config)
    if chosen in (LoadFileScheduling, None):
        assert made is None
    else:
        assert plugins["dsession"].sched is plugins["qreliab-scheduler"] is made
        assert [node.gateway.id for node in made.nodes] == ["gw0"]
