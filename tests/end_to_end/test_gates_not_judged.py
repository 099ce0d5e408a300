"""Gates on what a benchmark, recorded outputs or a model lack: refused, failed, or skipped and said, never gone."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from pytest_qreliab.record import Recording

pytestmark = pytest.mark.usefixtures("everything_imported")

# The embedded model as if it were not open_clip's, with an image tower that shows nothing but features.
CONFTEST = """
from pytest_qreliab import Clip, load_model

def make():
    tiny = load_model("tiny-digits")
    return Clip.wrap(tiny.module, tiny.preprocess, tiny.tokenizer)

def pytest_qreliab_register(catalog):
    catalog.add_model("mapless", make, version="1")
"""
NO_MAP = "the image tower shows no patch map; return `(features, map)` from encode_image, or give the ONNX graph a *"


@pytest.fixture
def run(pytester, small_benchmark, write_thresholds):
    """Runs a model without patch maps on the small benchmark, with the shipped gates or with these."""
    pytester.makeconftest(CONFTEST)

    def run(gates: str | None, *args: str):
        limits = "default" if gates is None else write_thresholds(gates)
        return pytester.runpytest_inprocess(
            "-p", "no:cacheprovider", "--qreliab-models=mapless", "--qreliab-bits=w8",
            f"--qreliab-benchmarks={small_benchmark}", f"--qreliab-thresholds={limits}", *args,
        )  # fmt: skip

    return run


@pytest.fixture
def recorded(pytester):
    """Runs pytest on random logits of three classes, with an OOD set, and returns its result."""

    def recorded(gates: str, *args: str, **more):
        rng = np.random.default_rng(0)
        recording = Recording(["bat", "cat", "dog"], **more)
        recording.add("in_distribution", range(30), labels=np.arange(30) % 3, logits=rng.normal(size=(30, 3)))
        recording.add("ood.far.noise", range(30), logits=rng.normal(size=(30, 3)))
        recording.save("r.npz")
        pytester.path.joinpath("t.yaml").write_text(f"version: 1\ngates:\n{gates}\n")
        names = ("models", "quantizers", "benchmarks")
        options = [f"--qreliab-{name}=recorded:r.npz" for name in names]
        return pytester.runpytest_inprocess(
            "-p", "no:cacheprovider", "--qreliab-thresholds=t.yaml", *options, *args
        )  # fmt: skip

    return recorded


def test_the_shipped_gates_do_not_fail_a_model_without_a_patch_map(run, tmp_path):
    files = {name: tmp_path / f"r.{name}" for name in ("json", "html", "xml")}
    result = run(
        None, "-q", f"--qreliab-json={files['json']}", f"--qreliab-html={files['html']}", f"--junitxml={files['xml']}"
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines([f"not judged: spectral.high_band_energy: {NO_MAP}"])
    # shift, two of corruption, two of spurious, and the patch map
    assert [line for line in result.outlines if line][-2] == "qreliab: 6 gated metrics not judged"
    (record,) = json.loads(files["json"].read_text())["cases"]
    assert len(record["skipped"]) == 6
    assert record["skipped"]["spectral.high_band_energy"].startswith("the image tower shows no patch map")
    assert len(record["gates"]) + len(record["skipped"]) == 14
    page = files["html"].read_text()
    assert "<h3>Not judged</h3>" in page
    assert "the image tower shows no patch map" in page
    properties = {of.get("name"): of.get("value") for of in ElementTree.parse(files["xml"]).getroot().iter("property")}
    assert properties["spectral.high_band_energy.skipped"] == record["skipped"]["spectral.high_band_energy"]


def test_a_gate_on_a_patch_map_fails_with_its_remedies(run):
    result = run("accuracy: {max_drop: 0.9}\nspectral.high_band_energy: {max_relative_change: 9}")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"*problem    {NO_MAP}output; or write `where_missing: skip` beside the limit"])
    assert "not judged" not in result.stdout.str()


def test_what_a_model_does_not_show_of_the_drift_is_skipped_as_well(run):
    gate = "{max_relative_change: 9, max_drift: 9, where_missing: skip}"
    gates = f"accuracy: {{max_drop: 0.9, max_drift: 0.9}}\nspectral.high_band_energy: {gate}"
    result = run(gates, "--qreliab-snapshot=accepted", "--qreliab-update=new")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["accepted into accepted: 1 new", "qreliab: 1 gated metric not judged"])


def test_an_aspect_of_which_nothing_is_judged_is_skipped_and_a_case_fails(run):
    gate = "spectral.high_band_energy: {max_relative_change: 9, where_missing: skip}"
    result = run(f"accuracy: {{max_drop: 0.9}}\n{gate}", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED * not judged: spectral.high_band_energy: {NO_MAP}"])
    result = run(gate)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"nothing was judged of mapless/minmax/w8/small: spectral.high_band_energy: {NO_MAP}"])


def test_the_self_check_leaves_out_what_a_model_does_not_show(run, monkeypatch):
    from pytest_qreliab.evaluation.verdicts import self_check

    monkeypatch.setattr(self_check, "REPLICATES", 5)
    result = run("accuracy: {max_drop: 0.9}\nspectral.high_band_energy: {max_change: 9}", "--qreliab-aa")
    result.assert_outcomes(passed=1)
    assert "spectral.high_band_energy" in result.stdout.str()


def test_recorded_logits_without_a_scale_do_not_lose_a_gate(recorded, refused):
    gates = "  accuracy: {max_drop: 0.5}\n  ood.auroc: {max_drop: 0.5"
    remedies = "record logit_scale, or gate ood.auroc.msp or ood.auroc.maxlogit or ood.auroc.energy"
    refused(
        recorded(gates + "}"),
        f"t.yaml:4: ood.auroc cannot be judged: recorded:r.npz holds logits without their *; {remedies}; or *",
    )
    result = recorded(gates + ", where_missing: skip}", "-q")
    result.stdout.fnmatch_lines(
        ["not judged: ood.auroc: recorded:r.npz holds logits *", "qreliab: 1 gated metric not judged"]
    )
    recorded(gates + "}", logit_scale=10.0).assert_outcomes(passed=2)
    recorded(gates.replace("auroc", "auroc.energy") + "}").assert_outcomes(passed=2)


@pytest.mark.parametrize("limit", ["max_drop: 0.1", "min: 0.1", "max_drop: 0.1, max_drift: 0.1"])
def test_a_class_that_is_not_there_ends_the_run_before_it_begins(recorded, pytester, limit, refused):
    for name, near in (("dgo", "did you mean 'dog'?"), ("2", "(label 2 is 'dog')")):
        refused(
            recorded(f"  accuracy: {{max_drop: 0.5}}\n  recall.{name}: {{{limit}}}"),
            f"t.yaml:4: recall.{name} cannot be judged: benchmark 'r' has no class *{near}*valid: bat, cat, dog;*",
        )


def test_a_gate_that_one_of_several_benchmarks_lacks(
    pytester, small_benchmark, folder_benchmark, write_thresholds, refused
):
    folder_benchmark.write_text(folder_benchmark.read_text().partition("ood:")[0])
    given = ("--qreliab-bits=w8", f"--qreliab-benchmarks={small_benchmark},{folder_benchmark}")
    gates = "accuracy: {max_drop: 0.9}\nood.auroc: {max_drop: 0.9"
    limits = write_thresholds(gates + "}")
    result = pytester.runpytest_inprocess(*given, f"--qreliab-thresholds={limits}")
    refused(result, "*limits.yaml:4: ood.auroc cannot be judged: benchmark 'folders' has no ood images; add *")
    write_thresholds(gates + ", where_missing: skip}")
    result = pytester.runpytest_inprocess(*given, f"--qreliab-thresholds={limits}")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "not judged: ood.auroc of tiny-digits/minmax/w8/folders: benchmark 'folders' has no ood images; *",
            "qreliab: 1 gated metric not judged",
        ]
    )
