"""Spectral gates, from the thresholds file to the verdict."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.verdicts.gates import JudgingRule
from pytest_qreliab.evaluation.verdicts.self_check import check
from pytest_qreliab.metrics import registry, spectral_metrics
from pytest_qreliab.metrics.definitions import FEATURES, RANK_BANDS
from pytest_qreliab.metrics.rank import HIGHEST_SQNR

BENCHMARK = "version: 1\nextends: digits\ncorruptions: null\ncovariate_shift: null\nspurious: null\nood: null\n"
NAMES = [
    *registry.of_aspect("spectrum"),
    *(f"{name}.{part}" for name in spectral_metrics.BY_RANK for part in FEATURES),
    *(f"spectral.{name}.{block}" for name in ("high_band_energy", "map_error") for block in (1, 4)),
]


def limit(name: str) -> str:
    return {"higher": "max_drop", "lower": "max_rise", "neither": "max_change"}[registry.lookup(name).better]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, make_plan):
    folder = tmp_path_factory.mktemp("spectrum")
    (folder / "b.yaml").write_text(BENCHMARK)
    gates = "".join(f"  {name}: {{{limit(name)}: 1000}}\n" for name in NAMES)
    (folder / "t.yaml").write_text(f"version: 1\ngates:\n{gates}")
    plan = make_plan(benchmarks=str(folder / "b.yaml"), thresholds=str(folder / "t.yaml"), bits="w4a8,w2")
    evaluator = Evaluator(plan)
    return evaluator, plan, [evaluator.result(case) for case in plan.cases]


def test_every_spectral_metric_can_be_gated(evaluated):
    _, _, results = evaluated
    for result in results:
        assert [verdict.gate.metric for verdict in result.verdicts] == NAMES
        for verdict in result.verdicts:
            assert verdict.passed, verdict
            assert np.isfinite([verdict.baseline, verdict.quantized]).all()
            metric = registry.lookup(verdict.gate.metric)
            assert (verdict.interval is not None) == (metric.spread is not None), metric.name
            if verdict.interval is not None:
                assert verdict.interval.low <= verdict.harm <= verdict.interval.high, metric.name


def test_fewer_bits_harm_more(evaluated):
    _, _, (four, two) = evaluated
    for name in NAMES:
        stem = name.split(".")[1]
        before, after = four.changes[name], two.changes[name]
        if stem.startswith(("sqnr", "cka")):
            assert after.quantized < before.quantized < before.baseline, name
        elif stem.startswith(("residual", "map_error", "weight_error", "principal")):
            assert after.quantized > before.quantized > 0 == before.baseline, name


def test_the_error_grows_with_rank(evaluated):
    """The study's, on four-bit weights; and the last ranks know less than the middle ones."""
    _, _, (four, _) = evaluated
    ratios = [four.changes[f"spectral.residual_{band}"].quantized for band in RANK_BANDS]
    assert ratios == sorted(ratios)
    for band, ratio in zip(RANK_BANDS, ratios, strict=True):
        assert four.changes[f"spectral.sqnr_{band}"].quantized == pytest.approx(-10 * np.log10(ratio))
    alone = {band: four.changes[f"spectral.accuracy_{band}"].quantized for band in RANK_BANDS}
    assert alone["mid_rank"] > alone["high_rank"]


def test_identical_models_differ_in_nothing(evaluated):
    evaluator, plan, _ = evaluated
    (baseline, _) = evaluator._measurer.measure_pair(plan.cases[0])
    names = [name for name in NAMES if "weights" not in registry.lookup(name).needs]
    for name, change in compare(baseline, baseline, names).items():
        assert change.delta == 0, name
        if change.bounds is not None and name in names:
            low, high = change.bounds(0.01)
            # As share of the samples that might yet differ, where the metric is one.
            assert low <= 0 <= high
            assert high - low < (0.05 if "accuracy" in name else 1e-6), name
    assert compare(baseline, baseline, ["spectral.sqnr"])["spectral.sqnr"].quantized == HIGHEST_SQNR


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("spectral.high_band_energy.5", {}, "the image tower shows no block 5; valid: 1 to 4"),
        ("spectral.map_error.9", {}, "the image tower shows no block 9; valid: 1 to 4"),
        ("spectral.map_error", {"blocks": None}, "the image tower shows no patch map"),
        ("spectral.sqnr.penultimate", {"features": {}}, "the image tower shows no penultimate features"),
        ("spectral.cka", {"features": {"": np.ones((898, 3), np.float32)}}, "64 wide in full precision and 3 here"),
        ("spectral.accuracy_low_rank", {"predictions": None}, "no text features to classify with"),
        ("spectral.sensitivity_low", {"sensitivity": np.full((128, 3), np.nan)}, "with gratings are not finite"),
        ("spectral.sensitivity_low", {"sensitivity": None}, "with gratings were not looked at"),
    ],
)
def test_what_a_model_does_not_show_fails_the_gate_on_it(evaluated, name, change, message):
    evaluator, plan, _ = evaluated
    baseline, quantized = evaluator._measurer.measure_pair(plan.cases[0])
    found = compare(baseline, dataclasses.replace(quantized, **change), [name])[name]
    assert message in found.problem
    assert found.bounds is None
    assert np.isnan(found.quantized)


def test_the_page_s_gates_can_be_loaded(tmp_path, make_plan):
    page = (Path(__file__).parents[4] / "docs" / "spectrum.md").read_text()
    gates = page.partition("```yaml\n")[2].partition("```")[0]
    assert "spectral.map_error.6:" in gates  # of a ViT with 12 blocks, where the embedded model has 4
    (tmp_path / "t.yaml").write_text(gates.replace("map_error.6", "map_error.3"))
    plan = make_plan(thresholds=str(tmp_path / "t.yaml"))
    assert len(plan.gates[plan.cases[0]]) == 6
    for name in registry.of_aspect("spectrum"):
        stem = name.removeprefix("spectral.")
        assert stem in page or stem.endswith(tuple(RANK_BANDS)) or stem.startswith("sensitivity"), name


def test_the_self_check_leaves_out_what_is_no_mean_over_samples(evaluated):
    evaluator, plan, _ = evaluated
    case = plan.cases[0]
    pair = evaluator._measurer.measure_pair(case)
    gates = [gate for gate in plan.gates[case] if gate.metric in ("spectral.high_band_energy", "spectral.cka")]
    rule = JudgingRule(error_probability=0.05, policy=plan.thresholds[case].policy, samples=pair[0].samples)
    found = check(case, *pair, gates, rule, device="cpu", advance=lambda done: None)
    assert [of.gate.metric for of in found.gates] == ["spectral.high_band_energy"]
    assert found.left_out == ("spectral.cka",)
