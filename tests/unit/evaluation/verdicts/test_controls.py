"""Matched controls: that they match, and that what is said of a change is so where the cause is known."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.evaluator import Evaluator
from pytest_qreliab.evaluation.verdicts.controls import Effect, _accounts, conclude, match_strength
from pytest_qreliab.report import terminal, to_record
from pytest_qreliab.statistics.interval import Interval

# Without corruptions and shifts, which take time.
BENCHMARK = """\
version: 1
extends: digits
corruptions: null
covariate_shift: null
spurious: null
ood: {far: null}
in_distribution: {limit: 500}
"""
GATES = "{accuracy: {max_drop: 0.9}, nll: {max_rise: 9}, spectral.effective_rank: {max_change: 9}, kl: {max_rise: 9}}"


def gates_in(folder, gates: str = "{accuracy: {max_drop: 0.9}}") -> str:
    (folder / "small.yaml").write_text(BENCHMARK)
    (folder / "limits.yaml").write_text(f"version: 1\ngates: {gates}\n")
    return str(folder / "limits.yaml")


def moved(change: float, reach: float) -> Effect:
    return Effect(change, Interval(change - reach, change + reach))


@pytest.mark.parametrize(
    ("change", "lowrank", "noise", "expected"),
    [
        (moved(0.1, 0.02), True, False, "explained by spectral filtering"),
        (moved(-0.1, 0.02), True, False, "explained by spectral filtering"),
        (moved(0.1, 0.02), False, True, "by noise of that size"),
        (moved(0.1, 0.02), True, True, "by noise of that size"),
        (moved(0.1, 0.02), None, True, "by noise of that size"),
        (moved(0.1, 0.02), False, False, "by neither"),
        (moved(0.1, 0.02), True, None, "cannot tell at this n"),
        (moved(0.1, 0.02), None, False, "cannot tell at this n"),
        (moved(0.1, 0.2), True, False, "cannot tell at this n"),
    ],
)
def test_what_is_concluded(change, lowrank, noise, expected):
    assert conclude(change, {"lowrank": lowrank, "noise": noise}) == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ([moved(0.01, 0.02)], True),
        ([moved(0.08, 0.02)], False),
        ([moved(-0.09, 0.02)], False),  # the control moves much farther
        ([moved(0.04, 0.02)], None),
        ([moved(0.09, 0.01), moved(0.092, 0.01), moved(0.091, 0.01)], False),
        ([moved(0.09, 0.01), moved(0.01, 0.02), moved(0.09, 0.01)], True),  # one draw of three does it
        ([moved(0.09, 0.01), moved(0.2, 0.01), moved(-0.07, 0.01)], None),  # another draw might
    ],
)
def test_a_control_accounts_for_a_change_of_which_less_than_half_is_left(left, expected):
    assert _accounts(moved(0.1, 0.02), left) is expected


@given(st.floats(1e-6, 1e3), st.floats(0.2, 3), st.floats(1e-3, 1e3))
def test_the_strength_is_found_for_any_curve_that_grows(factor, power, target):
    def ratio(at: float) -> float:
        return factor * at**power

    assume(1e-9 < (target / factor) ** (1 / power) < 1e9)
    assert ratio(match_strength(ratio, target)) == pytest.approx(target, rel=0.0051)


def test_a_ratio_out_of_reach_is_told():
    with pytest.raises(InputError, match=r"no control has features with the residual-to-signal ratio 2 "):
        match_strength(lambda at: 1 - math.exp(-at), 2.0)


def test_features_that_did_not_change_are_told():
    with pytest.raises(InputError, match="are those of full precision, so that there is nothing to match"):
        match_strength(lambda at: at, 0.0)


@pytest.fixture(scope="module")
def results(tmp_path_factory, make_plan):
    """By match and quantizer, the control's tables at two bits, where all moves."""
    folder = tmp_path_factory.mktemp("controls")
    thresholds = gates_in(folder, GATES)
    found = {}
    for match, quantizers in (("weights", "lowrank,noise"), ("features", "minmax")):
        settings = {"quantizers": quantizers, "bits": "w2", "controls": match, "thresholds": thresholds}
        plan = make_plan(benchmarks=str(folder / "small.yaml"), **settings)
        evaluator = Evaluator(plan)
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
    by_metric = {of.metric: of for of in controls.explanations}
    assert set(by_metric) == {"accuracy", "nll", "spectral.effective_rank"}  # of one model alone
    for name in ("accuracy", "nll", "spectral.effective_rank"):
        assert by_metric[name].conclusion == "explained by spectral filtering", name
        assert by_metric[name].controls["lowrank"].change == pytest.approx(by_metric[name].quantized.change, abs=1e-3)


def test_where_noise_is_the_cause_filtering_is_not_blamed(results):
    conclusions = {of.conclusion for of in results["weights", "noise"].controls.explanations}
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


def test_recorded_outputs_and_library_weights_have_no_controls(make_plan, tmp_path):
    pytest.importorskip("torchao")
    thresholds = gates_in(tmp_path)
    plan = make_plan(
        benchmarks=str(tmp_path / "small.yaml"),
        thresholds=thresholds,
        quantizers="torchao",
        bits="w8",
        controls="weights",
    )
    result = Evaluator(plan).result(plan.cases[0])
    assert "no control can match tiny-digits as it is quantized here" in result.controls.problem
    text = terminal.render([to_record.to_record(result, "", "")], terminal.Output(80, color=False, unicode=True))
    assert "no matched controls: " in text


def test_an_unknown_match_is_refused(make_plan):
    with pytest.raises(InputError, match="unknown match of controls 'weight'; did you mean 'weights'"):
        make_plan(controls="weight")


def test_text_alone_is_matched_by_the_features_of_the_classes(make_plan, tmp_path):
    thresholds = gates_in(tmp_path)
    plan = make_plan(
        benchmarks=str(tmp_path / "small.yaml"), thresholds=thresholds, bits="w3", scopes="text", controls="features"
    )
    ratios = list(Evaluator(plan).result(plan.cases[0]).controls.residuals.values())
    assert ratios[0] > 0
    assert ratios == pytest.approx([ratios[0]] * 3, rel=0.01)
