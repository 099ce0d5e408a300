"""A full-precision model that cannot be meant: told in summary and results, refused under `inconclusive: fail`."""

import json

import numpy as np
import pytest

from pytest_qreliab.record import Recording

pytestmark = pytest.mark.usefixtures("everything_imported")

CLASSES = ["cat", "dog", "owl"]
GATES = (
    "accuracy: {max_drop: 0.5}, ece: {max_rise: 0.9}, ece.equal_mass.10: {max_rise: 0.9}, ood.auroc: {max_drop: 0.9}"
)


def write(path, *, moved: int = 0, scale: float | None = 8.0, swapped: bool = False, n: int = 200) -> None:
    """Write outputs that are right nine times in ten, whose labels are moved by so many classes."""
    rng = np.random.default_rng(0)
    recording = Recording(CLASSES, logit_scale=scale, bits="w8" if path.stem == "quant" else None)
    labels = np.arange(n) % 3
    shown = np.where(rng.random(n) < 0.9, labels, rng.integers(0, 3, n))
    inside = 8 * (0.3 * rng.random((n, 3)) + 0.6 * np.eye(3)[shown])
    outside = 8 * 0.3 * rng.random((60, 3))
    if swapped:
        outside = 2 * outside + np.array([6.0, 0, 0])
    recording.add("in_distribution", [f"i{k}" for k in range(n)], logits=inside, labels=(labels + moved) % 3)
    recording.add("ood.far.noise", [f"o{k}" for k in range(60)], logits=outside)
    recording.save(path)


@pytest.fixture
def run(pytester):
    """Gates a recorded pair and returns the outcome, what was printed, and the record."""

    def run(inconclusive: str = "estimate", **more):
        for name in ("full", "quant"):
            write(pytester.path / f"{name}.npz", **more)
        (pytester.path / "t.yaml").write_text(f"version: 1\ninconclusive: {inconclusive}\ngates: {{{GATES}}}\n")
        arguments = ["models=recorded:full.npz", "quantizers=recorded:quant.npz", "benchmarks=recorded:full.npz"]
        arguments += ["thresholds=t.yaml", "bits=w8", "cache-dir=none", "json=r.json"]
        result = pytester.runpytest_inprocess(*(f"--qreliab-{argument}" for argument in arguments))
        (record,) = json.loads((pytester.path / "r.json").read_text())["cases"]
        return result, record

    return run


def test_a_model_of_use_passes_without_a_warning(run):
    result, record = run("fail")
    assert result.ret == 0
    assert record["warnings"] == []
    assert {gate["metric"] for gate in record["gates"]} >= {"ece.equal_mass.10"}


def test_classes_in_another_order_are_a_warning_in_the_summary_and_the_results(run):
    result, record = run(moved=1)
    assert result.ret == 0
    (warning,) = record["warnings"]
    assert "if the class names were in another order" in warning
    result.stdout.fnmatch_lines([f"warning: {warning[:60]}*"])


def test_under_inconclusive_fail_every_gate_fails_with_the_reason(run):
    result, record = run("fail", moved=1)
    assert result.ret == 1
    result.assert_outcomes(failed=3)
    assert not any(gate["passed"] for gate in record["gates"])
    assert all("if the class names were in another order" in gate["problem"] for gate in record["gates"])
    result.stdout.fnmatch_lines(["*problem*accuracy is 0.0*another order*"])


def test_few_samples_are_no_fault(run):
    _, record = run(n=4, moved=1)
    assert not record["warnings"]


def test_an_ood_set_that_looks_more_in_distribution_is_warned_of(run):
    _, record = run(swapped=True)
    (warning,) = record["warnings"]
    assert "full-precision AUROC of noise by mcm is 0" in warning
