"""Controls of cases: that they err as much, and that what is said of a change is so where the cause is known."""

from dataclasses import replace

import pytest

from pytest_qreliab.embedding.store import Store
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.matched_controls import MatchedControls
from pytest_qreliab.evaluation.progress import silent
from pytest_qreliab.quantizers.parameters import RoundingParameters
from pytest_qreliab.quantizers.recipe import Recipe
from pytest_qreliab.report import terminal, to_record

# Without corruptions and shifts, which take time.
BENCHMARK = """\
version: 1
extends: digits
corruptions: null
covariate_shift: null
spurious: null
ood: null
in_distribution: {limit: 300}
calibration: {limit: 150}
"""
GATES = "{accuracy: {max_drop: 0.9}, nll: {max_rise: 9}, spectral.effective_rank: {max_change: 9}, kl: {max_rise: 9}}"


def gates_in(folder, gates: str = "{accuracy: {max_drop: 0.9}}") -> str:
    (folder / "small.yaml").write_text(BENCHMARK)
    (folder / "limits.yaml").write_text(f"version: 1\ngates: {gates}\n")
    return str(folder / "limits.yaml")


def with_three_levels(recipe: Recipe) -> Recipe:
    """Match the errors of two bits without the lowest level, which move more than those of four levels."""
    if recipe.matched is None:
        return recipe
    return replace(recipe, matched=replace(recipe.matched, parameters=RoundingParameters(restricted_range=True)))


@pytest.fixture(scope="module")
def results(tmp_path_factory, make_plan, kept):
    """By match and quantizer, the control's tables at two bits, where all moves."""
    folder = tmp_path_factory.mktemp("controls")
    thresholds = gates_in(folder, GATES)
    found = {}
    for match, quantizers in (("weights", "lowrank,noise"), ("features", "minmax")):
        settings = {"quantizers": quantizers, "bits": "w2", "controls": match, "thresholds": thresholds}
        plan = make_plan(benchmarks=str(folder / "small.yaml"), **settings)
        plan = replace(plan, recipes={name: with_three_levels(recipe) for name, recipe in plan.recipes.items()})
        evaluator = Evaluator(plan, store=Store(kept))
        for case in plan.cases:
            found[match, case.build.quantizer] = evaluator.result(case)
    return found


def test_features_of_controls_err_as_those_of_the_quantized_model(results):
    controls = results["features", "minmax"].controls
    ratios = list(controls.residuals.values())
    assert ratios[1:] == pytest.approx([ratios[0]] * 2, rel=0.01)
    assert list(controls.residuals) == ["minmax w2", "lowrank", "noise"]


def test_where_filtering_is_the_cause_it_is_found(results):
    """The case is a low-rank filter itself, and its control the same again."""
    controls = results["weights", "lowrank"].controls
    by_metric = {explanation.metric: explanation for explanation in controls.explanations}
    assert set(by_metric) == {"accuracy", "nll", "spectral.effective_rank"}  # of one model alone
    for name in ("accuracy", "nll", "spectral.effective_rank"):
        assert by_metric[name].conclusion == "explained by spectral filtering", name
        assert by_metric[name].controls["lowrank"].change == pytest.approx(by_metric[name].quantized.change, abs=1e-3)


def test_where_noise_is_the_cause_filtering_is_not_blamed(results):
    conclusions = {explanation.conclusion for explanation in results["weights", "noise"].controls.explanations}
    assert "explained by spectral filtering" not in conclusions
    assert "by neither" not in conclusions


def test_the_table_shows_changes_intervals_and_conclusions(results):
    result = results["weights", "lowrank"]
    text = terminal.render([to_record.to_record(result, "", "")], terminal.Output(80, color=False, unicode=True))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    table = text.partition("why lowrank w2 moves tiny-digits on small")[2]
    assert "each weight errs by as much" in table
    change = result.controls.explanations[0].quantized.change
    row = table.partition("accuracy")[2].splitlines()
    assert f"{change:+.4f}" in row[0]
    assert "explained by spectral filtering" in row[1]


def test_recorded_outputs_and_library_weights_have_no_controls(make_plan, tmp_path, kept):
    pytest.importorskip("torchao")
    thresholds = gates_in(tmp_path)
    plan = make_plan(
        benchmarks=str(tmp_path / "small.yaml"),
        thresholds=thresholds,
        quantizers="torchao",
        bits="w8",
        controls="weights",
    )
    result = Evaluator(plan, store=Store(kept)).result(plan.cases[0])
    assert "no control can match tiny-digits as it is quantized here" in result.controls.problem
    text = terminal.render([to_record.to_record(result, "", "")], terminal.Output(80, color=False, unicode=True))
    assert "no matched controls: " in text


def test_text_alone_is_matched_by_the_features_of_the_classes(make_plan, tmp_path, kept):
    thresholds = gates_in(tmp_path)
    plan = make_plan(
        benchmarks=str(tmp_path / "small.yaml"), thresholds=thresholds, bits="w3", scopes="text", controls="features"
    )
    ratios = list(Evaluator(plan, store=Store(kept)).result(plan.cases[0]).controls.residuals.values())
    assert ratios[0] > 0
    assert ratios == pytest.approx([ratios[0]] * 3, rel=0.01)


@pytest.mark.parametrize("recorded", ["minmax", "tiny-digits"])
def test_recorded_outputs_have_no_weights_to_match(make_plan, small_benchmark, recorded):
    plan = make_plan(benchmarks=str(small_benchmark), bits="w8", controls="weights")
    (case,) = plan.cases
    cache = Evaluator(replace(plan, recordings={recorded: None})).model_cache
    findings = MatchedControls(models=cache, measurer=None, progress=silent).findings(case, None, None)
    assert (findings.problem, findings.residuals) == ("recorded outputs have no weights", {})


def test_nothing_is_explained_that_nobody_asked_for(make_plan, small_benchmark):
    plan = make_plan(benchmarks=str(small_benchmark), bits="w8")
    controls = MatchedControls(models=Evaluator(plan).model_cache, measurer=None, progress=silent)
    assert controls.findings(plan.cases[0], None, None) is None
