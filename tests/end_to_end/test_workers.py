"""Runs with pytest-xdist: who gets which test, and what becomes of those of a worker that dies."""

import json
import re

import pytest

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
    if request.bits.weights.bits == 3:
        os.kill(os.getpid(), 9)
    return clip.copy()

def pytest_qreliab_register(catalog):
    catalog.add_quantizer(
        Quantizer(
            name="deadly", help="kills at w3", function=die, default_activations=None, needs="nothing", coverage=0.0
        )
    )
"""


@pytest.fixture
def run(pytester, small_benchmark, monkeypatch):
    """Runs pytest in a process of its own on two small benchmarks, as many threads as one of two workers has."""
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
