"""Runs with pytest-xdist: who gets which test, what becomes of those of a worker that dies, whose GPU and cores."""

import json
import os
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from xdist.remote import Producer

from pytest_qreliab import workers
from pytest_qreliab.config.cases import Bits, Build, Case
from pytest_qreliab.models.devices import resolve_device
from pytest_qreliab.plugin.xdist import BuildScheduling

RECORD = """
import json, os

def pytest_runtest_logreport(report):
    if report.when == "call" and "PYTEST_XDIST_WORKER" not in os.environ:
        with open("who.jsonl", "a") as file:
            print(json.dumps([report.nodeid, report.node.gateway.id]), file=file)
"""

DIE = """
import os
from pytest_qreliab import Quantizer

def die(clip, request):
    if request.bits.weights == 3:
        os.kill(os.getpid(), 9)
    return clip.copy()

def pytest_qreliab_register(catalog):
    catalog.add_quantizer(
        Quantizer("deadly", "kills at w3", die, default_activations=None, needs="nothing", coverage=0.0)
    )
"""


@pytest.fixture
def run(pytester, small_benchmark, monkeypatch):
    """Runs pytest in a process of its own on two small benchmarks, as many threads as one of two workers has."""
    for name in [name for name in os.environ if name.startswith(("QRELIAB_", "PYTEST_XDIST"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    second = pytester.path / "second.yaml"
    second.write_text(small_benchmark.read_text().replace("limit: 120", "limit: 100"))

    def run(*args: str):
        return pytester.runpytest_subprocess(f"--qreliab-benchmarks={small_benchmark},second.yaml", *args)

    return run


def table(result) -> list[str]:
    """The lines of the summary table, without the empty ones."""
    lines = [line for line in result.outlines if line]
    start = lines.index(f"{' reliability ':=^80}")
    return lines[start : next(i for i, line in enumerate(lines) if line.startswith("second line:"))]


@pytest.mark.slow
def test_each_build_has_one_worker_and_the_table_is_that_of_one_process(pytester, run):
    pytester.makepyfile(test_theirs="import pytest\n@pytest.mark.parametrize('x', range(5))\ndef test_it(x): pass")
    args = ("--qreliab-bits=w8,w4,w3", "qreliab", "test_theirs.py")
    alone = run(*args)
    pytester.makeconftest(RECORD)
    many = run(*args, "-n2")
    assert many.parseoutcomes() == alone.parseoutcomes()
    assert many.parseoutcomes()["passed"] > 5
    assert table(many) == table(alone)
    assert many.stdout.str().count("qreliab: 6 cases") == 1
    who = dict(json.loads(line) for line in (pytester.path / "who.jsonl").read_text().splitlines())
    ours = {nodeid: worker for nodeid, worker in who.items() if nodeid.startswith("qreliab::")}
    assert len(ours) == 6 * 4
    assert len(who) == len(ours) + 5
    pairs = {(re.search(r"w\d", nodeid)[0], worker) for nodeid, worker in ours.items()}
    assert len(pairs) == 3
    assert {worker for _, worker in pairs} == {"gw0", "gw1"}


@pytest.mark.slow
def test_when_a_worker_dies_its_case_fails_and_the_rest_goes_on(pytester, run):
    pytester.makeconftest(DIE)
    result = run("--qreliab-quantizers=deadly", "--qreliab-bits=w2,w3,w4", "--qreliab-json=it.json", "-n2", "-v")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=16, failed=8)
    written = json.loads((pytester.path / "it.json").read_text())
    assert [entry["case"] for entry in written["cases"]] == [
        case for case in written["plan"]["cases"] if "w3" not in case
    ]
    assert len(written["errors"]) == 2
    for benchmark in ("small", "second"):
        case = f"tiny-digits/deadly/w3/{benchmark}"
        lines = [line for line in result.outlines if re.match(rf"worker gw\d+ crashed .* measured {case}", line)]
        assert len(lines) == 4
        assert written["errors"][case] == lines[0]
        assert all("SIGKILL; out of memory? Fewer workers (-n)" in line for line in lines)
        for aspect in ("accuracy", "calibration", "ood", "spectrum"):
            assert result.stdout.str().count(f"FAILED qreliab::test_{aspect}[{case}] -") == 1
    assert sum(line.startswith(("deadly w2", "deadly w4")) for line in table(result)) == 8  # of two parts each


@pytest.mark.slow
def test_what_no_worker_is_left_for_is_named(pytester, run):
    pytester.makeconftest(DIE)
    result = run("--qreliab-quantizers=deadly", "--qreliab-bits=w3,w2", "-n1", "--max-worker-restart=0", "-k", "small")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        ["*= not run, for want of workers =*", "qreliab::test_accuracy[[]tiny-digits/deadly/w2/small]"]
    )


@pytest.mark.slow
def test_loadfile_remains_what_it_is(pytester, run):
    pytester.makeconftest(RECORD)
    run("--qreliab-bits=w8,w4", "-n2", "--dist=loadfile").assert_outcomes(passed=16)
    lines = (pytester.path / "who.jsonl").read_text().splitlines()
    assert len({json.loads(line)[1] for line in lines}) == 1


@pytest.mark.slow
def test_fixtures_without_any_option_leave_the_tests_to_xdist(pytester, run):
    pytester.makepyfile(test_it="def test_it(qreliab_result): assert qreliab_result.samples == 898")
    result = pytester.runpytest_subprocess("-n1", "-k", "w4a8")
    result.assert_outcomes(passed=1)
    assert any(line.startswith("minmax w4a8") for line in table(result))


# The scheduler alone


def plan_of(*models: str):
    widths = (Bits(8), Bits(4), Bits(4, 8))
    cases = [
        Case(Build(model, "minmax", bits, "both", benchmark if bits.activations else None), benchmark)
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
    return BuildScheduling(config, Producer("", enabled=False), plan)


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


# GPUs and cores


@pytest.mark.parametrize(
    ("worker", "text", "device"),
    [
        ("", "auto", "cuda"),
        ("gw0", "auto", "cuda:0"),
        ("gw1", "cuda", "cuda:1"),
        ("gw5", "auto", "cuda:2"),
        ("gw5", "cuda:1", "cuda:1"),
        ("gw5", "cpu", "cpu"),
    ],
)
def test_workers_take_the_visible_gpus_in_turn(monkeypatch, worker, text, device):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert resolve_device(text) == torch.device(device)


@pytest.mark.parametrize(
    ("worker", "omp", "cores", "threads"),
    [("gw1", "", 12, [4]), ("gw0", "", 2, [1]), ("gw0", "5", 12, []), ("", "", 12, [])],
)
def test_workers_share_the_cores(monkeypatch, worker, omp, cores, threads):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    workers.limit_to_share(torch.device("cpu"))
    assert taken == threads


@pytest.mark.parametrize(("worker", "current"), [("gw1", [torch.device("cuda:1")]), ("", [])])
def test_the_gpu_of_a_worker_is_the_current_one(monkeypatch, worker, current):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    workers.limit_to_share(torch.device("cuda:1"))
    assert chosen == current
