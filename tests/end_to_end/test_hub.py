"""Models and data sets of a hub: asked for once, before the run, and by one process."""

import json

import pytest

from pytest_qreliab import cli

pytestmark = pytest.mark.usefixtures("everything_imported")

BRANCH = "hf-hub:org/small"


@pytest.fixture
def repository(hub, hub_model):
    """The stand-in with a small model."""
    return hub


@pytest.fixture
def run(pytester, small_benchmark):
    """Runs pytest in this process."""

    def run(model: str, *args: str):
        given = [f"--qreliab-models={model}", f"--qreliab-benchmarks={small_benchmark}", "--qreliab-bits=8"]
        return pytester.runpytest_inprocess("--qreliab-cache-dir=store", *given, *args)

    return run


def test_a_warm_run_of_a_pinned_commit_asks_nothing_and_encodes_nothing(pytester, run, repository, capsys):
    commit = repository.commit("models/org/small")
    result = run(f"{BRANCH}@{commit}", "--qreliab-json=cold.json")
    assert result.ret == 0
    assert "qreliab: downloaded 3.1 MiB of org/small open_clip_model.safetensors" in capsys.readouterr().err
    repository.requests.clear()
    warm = run(f"{BRANCH}@{commit}", "--qreliab-json=warm.json")
    assert (warm.ret, repository.requests) == (0, [])
    warm.stdout.fnmatch_lines([f"qreliab: {BRANCH}@{commit}: repository org/small@{commit}, commit {commit}, *"])
    warm.stdout.fnmatch_lines(["0 images and prompts encoded, *"])
    record = json.loads((pytester.path / "warm.json").read_text())["cases"][0]
    assert record["baseline"]["commit"] == record["environment"]["model commit"] == commit


def test_a_commit_that_changes_the_configuration_alone_is_another_model(pytester, run, repository, capsys):
    """Also to the cache: with other settings the same weights say other things."""
    accepted = ("--qreliab-snapshot=accepted",)
    assert run(BRANCH, "--qreliab-json=before.json", "--qreliab-update=new", *accepted).ret == 0
    before = repository.commit("models/org/small")
    files = repository.repositories["models/org/small"]
    described = json.loads(files["open_clip_config.json"])
    described["model_cfg"]["vision_cfg"]["head_width"] = 8
    files["open_clip_config.json"] = json.dumps(described).encode()
    after = repository.commit("models/org/small")
    result = run(BRANCH, "--qreliab-json=after.json", *accepted)
    result.stdout.fnmatch_lines([f"*environment: model commit {before} was accepted, {after} is there now*"])
    old, new = (
        json.loads((pytester.path / f"{name}.json").read_text())["cases"][0]["metrics"] for name in ("before", "after")
    )
    assert [metric["baseline"] for metric in old] != [metric["baseline"] for metric in new]
    capsys.readouterr()
    cli.main(["compare", "before.json", "after.json"])
    assert f"change: full precision: commit: {before} became {after}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pattern", "fault", "message"),
    [
        ("HEAD", {"status": 401, "code": "GatedRepo"}, "it is gated: *accept the terms at *, and log in*"),
        ("/api/models", {"status": 401, "code": "RepoNotFound"}, "there is no repository org/small at *"),
        ("GET .*safetensors", {"flip": True}, "what came as open_clip_model.safetensors has another SHA-256*"),
    ],
    ids=["gated", "no repository", "damaged"],
)
def test_what_goes_wrong_at_the_hub_is_one_message_before_the_run(run, repository, pattern, fault, message):
    repository.faults[pattern] = fault
    result = run(BRANCH)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: model org/small@main: {message}"])
    assert result.stderr.str().count("org/small@main") == 1
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert "test session starts" not in result.stdout.str()


def test_listing_tests_asks_nothing_and_says_what_is_here(run, repository):
    result = run(BRANCH, "--collect-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"qreliab: {BRANCH}: files not downloaded yet", "*4 tests collected*"])
    assert repository.requests == []


def test_check_downloads_if_it_is_told_to(pytester, repository, small_benchmark, capsys):
    suite = pytester.path / "suite.yaml"
    suite.write_text(f"version: 1\nmodels: [{BRANCH}]\nbenchmarks: [{small_benchmark}]\nbits: [8]\n")
    assert cli.main(["check", str(suite)]) == 0
    assert f"absent   {BRANCH}: not downloaded yet; a run fetches it" in capsys.readouterr().out
    assert repository.requests == []
    assert cli.main(["check", "--download", str(suite)]) == 0
    commit = repository.commit("models/org/small")
    assert f"present  {BRANCH}: commit {commit} of org/small@main" in capsys.readouterr().out
    repository.requests.clear()
    assert cli.main(["check", str(suite)]) == 0
    assert f"present  {BRANCH}: commit {commit} of org/small@main" in capsys.readouterr().out
    assert repository.requests == []


@pytest.mark.slow
def test_workers_ask_nothing_of_the_hub(
    pytester, hub_server, small_benchmark, write_local_model, tmp_path, monkeypatch
):
    folder = write_local_model(tmp_path / "model")
    hub_server.repositories["models/org/small"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = pytester.runpytest_subprocess(
        f"--qreliab-models={BRANCH}", f"--qreliab-benchmarks={small_benchmark}", "--qreliab-bits=8,w8", "-n2"
    )
    assert result.ret == 0
    assert hub_server.requests.count("GET /api/models/org/small/revision/main") == 1
    assert sum(request.startswith("GET") and "/resolve/" in request for request in hub_server.requests) == 2
