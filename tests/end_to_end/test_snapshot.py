"""Accepted results: the way from the first release to the next one, and what is refused on it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pytest_qreliab import cli

pytestmark = pytest.mark.usefixtures("everything_imported")

THRESHOLDS = """\
accuracy: {max_drop: 0.5, max_drift: 0.02}
nll: {max_rise: 9, max_drift: 0.05}
ood.auroc: {max_drop: 0.5, max_drift: 0.02}
spectral.high_band_energy: {max_change: 0.5}
"""
CASE = "mine/minmax/w8/small"
MINE = """
from pathlib import Path
from pytest_qreliab import load_model
from safetensors.torch import load_file

def mine():
    clip = load_model("tiny-digits")
    if Path("weights.safetensors").exists():
        clip.module.load_state_dict(load_file("weights.safetensors"))
    return clip

def pytest_qreliab_register(catalog):
    catalog.add_model("mine", mine, version="another" if Path("weights.safetensors").exists() else "embedded")
"""


@pytest.fixture
def run(pytester, small_benchmark, write_thresholds, monkeypatch, kept):
    """Runs a model, which is at first the embedded one, against the snapshot `accepted`."""
    for name in [name for name in os.environ if name.startswith("QRELIAB_") or name in ("CI", "GITHUB_ACTIONS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    pytester.makeconftest(MINE)
    (pytester.path / "small.yaml").write_text(small_benchmark.read_text())
    limits = write_thresholds(THRESHOLDS)

    def run(*args: str, bits: str = "w8", subprocess: bool = False):
        given = [
            f"--qreliab-cache-dir={kept}",
            "--qreliab-models=mine",
            f"--qreliab-bits={bits}",
            "--qreliab-benchmarks=small.yaml",
            f"--qreliab-thresholds={limits}",
            "--qreliab-snapshot=accepted",
            *args,
        ]
        if not subprocess:
            return pytester.runpytest_inprocess("-p", "no:cacheprovider", *given)
        for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
            monkeypatch.delenv(name)
        return pytester.runpytest_subprocess(*given)

    return run


@pytest.fixture
def disturb(tiny, pytester):
    """Makes the model another one, a little worse."""
    import torch
    from safetensors.torch import save_file

    def disturb() -> None:
        generator = torch.Generator().manual_seed(0)
        state = dict(tiny.module.state_dict())
        for name, value in state.items():
            if value.ndim == 2 and name.startswith("visual"):
                state[name] = value + 0.8 * value.std() * torch.randn(value.shape, generator=generator)
        save_file(state, pytester.path / "weights.safetensors")

    return disturb


def test_from_the_first_release_to_the_next(pytester, run, disturb):
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --qreliab-snapshot: accepted does not exist; accept this run's results with --qreliab-update=new"]
    )
    result = run("--qreliab-update=new")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["accepted into accepted: 1 new"])
    path = pytester.path / "accepted" / "mine.json"
    first = path.read_text()
    run().assert_outcomes(passed=4)
    assert path.read_text() == first

    disturb()
    result = run()
    result.assert_outcomes(passed=1, failed=3)  # the spectrum has no drift gate; from full precision all are fine
    result.stdout.fnmatch_lines(
        [
            "qreliab: 4 gates of *limits.yaml*",
            "qreliab: 3 gates on the drift from accepted",
            "minmax w8 *",
            "     *✓ *✓ *✓ *✓*",  # from full precision
            "     *-0.0333 ✗ *+0.14?? ✗ *-0.10?? ✗",
            "second line: change from full precision; third: from what was accepted; *",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "nll: 1 of 2 gates failed",
            "  nll (*)",
            "    baseline   *",
            "    accepted   *",
            "    quantized  *",
            "    harm       *",
            "    limit      max_drift 0.05, *limits.yaml:4",
            "  repeat: pytest *--qreliab-snapshot=accepted",
        ]
    )
    assert path.read_text() == first
    run("--qreliab-update=new").assert_outcomes(passed=1, failed=3)  # which renews nothing that is there
    assert path.read_text() == first

    result = run("--qreliab-update=all")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["accepted into accepted: 1 changed"])
    run().assert_outcomes(passed=4)
    before, after = json.loads(first), json.loads(path.read_text())
    assert before["data"] == after["data"]
    old, new = (of["cases"][CASE]["metrics"]["nll"]["value"] for of in (before, after))
    assert new > old + 0.05


def test_a_drift_of_rounded_activations_shows_what_another_kernel_does(pytester, run, disturb):
    run("--qreliab-update=new", bits="w8a8").assert_outcomes(passed=4)
    disturb()
    spreads = []
    for _ in range(2):
        result = run("--qreliab-json=it.json", bits="w8a8")
        result.assert_outcomes(passed=1, failed=3)
        result.stdout.fnmatch_lines(["    harm       *", "    kernels    another attention kernel moves it by 0.*"])
        (case,) = json.loads(Path("it.json").read_text())["cases"]
        spreads.append({f"{gate['metric']} {gate['limit']}": gate["kernel_spread"] for gate in case["gates"]})
    assert spreads[0] == spreads[1]
    assert case["encoded"] == 0  # the spread is kept as well
    assert spreads[0]["nll max_rise"] is None
    assert 0 < spreads[0]["nll max_drift"] < 0.01  # far less than the drift, of 0.14


def test_a_deterministic_run_is_another_environment_and_reads_nothing_of_others(run):
    run("--qreliab-update=new", bits="w8a8").assert_outcomes(passed=4)
    result = run("--qreliab-deterministic=yes", "--qreliab-json=it.json", bits="w8a8")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "qreliab: 4 gates of *, device auto, deterministic",
            "warning: environment: kernels none was accepted, deterministic is there now",
        ]
    )
    (case,) = json.loads(Path("it.json").read_text())["cases"]
    assert case["environment"]["kernels"] == "deterministic"


@pytest.fixture
def accepted(pytester):
    """Gives what was accepted, and forgets it."""

    def accepted() -> str:
        folder = pytester.path / "accepted"
        (path,) = folder.iterdir()
        text = path.read_text()
        shutil.rmtree(folder)
        return text

    return accepted


@pytest.mark.slow
def test_workers_accept_the_same_as_one_process(run, accepted):
    run("--qreliab-update=new", bits="w8,w4", subprocess=True).assert_outcomes(passed=8)
    whole = accepted()
    run("--qreliab-update=new", "-n2", bits="w8,w4", subprocess=True).assert_outcomes(passed=8)
    assert accepted() == whole


def test_shards_accept_the_same_as_one_process(run, accepted):
    run("--qreliab-update=new", bits="w8,w4").assert_outcomes(passed=8)
    whole = accepted()
    for shard in ("1/2", "2/2"):
        result = run("--qreliab-update=new", f"--qreliab-shard={shard}", "--qreliab-json=it.json", bits="w8,w4")
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["accepted into accepted: 1 new"])
        shutil.copy("it.json", f"{shard[0]}.json")
    assert accepted() == whole
    assert cli.main(["merge", "1.json", "2.json", "--output=all.json"]) == 0
    assert cli.main(["accept", "all.json", "--snapshot=accepted"]) == 0
    assert accepted() == whole


def test_another_data_set_or_environment_is_named_and_no_failure(pytester, run, disturb):
    run("--qreliab-update=new").assert_outcomes(passed=4)
    path = pytester.path / "accepted" / "mine.json"
    content = json.loads(path.read_text())
    for environment in content["environments"].values():
        environment["torch"] = "1.0"
    path.write_text(json.dumps(content))
    result = run()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["warning: environment: torch 1.0 was accepted, * is there now"])
    disturb()
    run().assert_outcomes(passed=1, failed=3)  # another environment excuses nothing

    small = pytester.path / "small.yaml"
    small.write_text(small.read_text().replace("limit: 120", "limit: 110").replace('"{}"', '"the {}"'))
    result = run("--qreliab-json=it.json")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "warning: data of small: in_distribution 120 images * was accepted, 110 images * is there now",
            "warning: data of small: templates 2 * was accepted, 2 * is there now",
        ]
    )
    assert "classes" not in result.stdout.str()
    (entry,) = json.loads(Path("it.json").read_text())["cases"]
    drifts = [gate for gate in entry["gates"] if gate["limit"] == "max_drift"]
    assert len(drifts) == 3
    for gate in drifts:
        assert (gate["outcome"], gate["passed"]) == ("inconclusive", True)
        assert gate["problem"] == "other data were measured for accepted"


def test_what_is_unused_is_told_where_nothing_was_left_out(pytester, run):
    run("--qreliab-update=new", bits="w8,w4")
    assert "not of this run" not in run(bits="w8,w4").stdout.str()
    unused = "in accepted and not of this run: mine/minmax/w4/small"
    run(bits="w8").stdout.fnmatch_lines([unused])
    assert unused not in run("-k", "w5", bits="w8,w5").stdout.str()
    assert unused not in run("--qreliab-shard=1/2", bits="w8,w5").stdout.str()


def test_a_case_that_nobody_accepted_fails(run):
    run("--qreliab-update=new")
    result = run(bits="w8,w4")
    result.assert_outcomes(passed=5, failed=3)
    result.stdout.fnmatch_lines(["    problem    nothing is accepted in accepted; accept it with --qreliab-update=new"])


def test_a_case_whose_gates_fail_is_not_accepted(pytester, run, write_thresholds):
    write_thresholds("accuracy: {min: 1.01, max_drift: 0.1}")
    result = run("--qreliab-update=new")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["accepted into accepted: nothing", f"not accepted, as a gate fails: {CASE}"])
    assert list((pytester.path / "accepted").iterdir()) == []


def test_metrics_that_are_gated_later_are_added(pytester, run, write_thresholds):
    write_thresholds("accuracy: {max_drift: 0.1}")
    run("--qreliab-update=new").assert_outcomes(passed=1)
    write_thresholds("accuracy: {max_drift: 0.1}\nnll: {max_drift: 0.1}")
    run().assert_outcomes(passed=1, failed=1)
    run("--qreliab-update=new").stdout.fnmatch_lines(["accepted into accepted: 1 changed"])
    run().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("ci", "update", "message"),
    [
        ("true", "new", "--qreliab-update: nothing is accepted in CI (the variable CI is set) by mistake: *new,ci"),
        ("1", "all", "--qreliab-update: nothing is accepted in CI (the variable CI is set) by mistake: *all,ci"),
        (
            "",
            "everything",
            "--qreliab-update: unknown update 'everything'; valid: all, new, none; with ,ci behind it *",
        ),
        ("", "new,all", "--qreliab-update: unknown update 'new,all'*"),
    ],
)
def test_what_is_refused(run, monkeypatch, ci, update, message):
    monkeypatch.setenv("CI", ci)
    result = run(f"--qreliab-update={update}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_ci_accepts_when_told(run, monkeypatch):
    monkeypatch.setenv("CI", "true")
    run("--qreliab-update=new,ci").stdout.fnmatch_lines(["accepted into accepted: 1 new"])


def test_a_snapshot_needs_a_gate_on_the_drift(run, write_thresholds):
    write_thresholds("accuracy: {max_drop: 0.1}")
    result = run("--qreliab-update=new")
    result.stderr.fnmatch_lines(
        ["ERROR: --qreliab-snapshot: nothing is held against the snapshot: *limits.yaml:2 has*"]
    )
    write_thresholds("accuracy: {max_drift: 0.1}")
    result = run("--qreliab-snapshot=none")
    result.stderr.fnmatch_lines(["ERROR: *limits.yaml:3: accuracy *: its only limit is max_drift, which needs --*"])
    result = run("--qreliab-snapshot=none", "--qreliab-update=new")
    result.stderr.fnmatch_lines(["ERROR: --qreliab-update: there is no snapshot to update; name one with *"])
