"""Limits, corrections and what an inconclusive verdict becomes, on changes made by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedValues
from pytest_qreliab.evaluation.verdicts.gates import judge, judge_drift, not_shown
from pytest_qreliab.statistics import multiple_testing
from pytest_qreliab.statistics.interval import normal_interval

CORRECTIONS = ("bonferroni", "holm", "benjamini-hochberg", "none")


@pytest.fixture(scope="module")
def judge_one(make_rule):
    """Judges one change by one gate; the other settings are those of the rule."""

    def judge_one(change, gate, **settings):
        (verdict,) = judge({change.metric: change}, [gate], make_rule(**settings))
        return verdict

    return judge_one


@pytest.mark.parametrize(
    ("limit", "value", "change", "outcome", "harm"),
    [
        pytest.param(
            "max_drop", 0.05, {"baseline": 0.9, "quantized": 0.88, "low": -0.04, "high": 0.0}, "pass", 0.02,
            id="a drop that is surely within its limit",
        ),
        pytest.param(
            "max_drop", 0.05, {"baseline": 0.9, "quantized": 0.80, "low": -0.12, "high": -0.08}, "fail", 0.10,
            id="a drop that is surely beyond its limit",
        ),
        pytest.param(
            "max_drop", 0.05, {"baseline": 0.9, "quantized": 0.86, "low": -0.06, "high": -0.02}, "inconclusive", 0.04,
            id="a drop whose interval holds the limit",
        ),
        pytest.param(
            "max_drop", 0.05, {"baseline": 0.9, "quantized": 0.99, "low": 0.08, "high": 0.10}, "pass", -0.09,
            id="a rise is no drop",
        ),
        pytest.param(
            "max_rise", 0.05, {"baseline": 0.1, "quantized": 0.2, "low": 0.08, "high": 0.12}, "fail", 0.10,
            id="a rise that is surely beyond its limit",
        ),
        pytest.param(
            "max_rise", 0.05, {"baseline": 0.1, "quantized": 0.0, "low": -0.12, "high": -0.08}, "pass", -0.10,
            id="a drop is no rise",
        ),
        pytest.param(
            "max_change", 0.05, {"baseline": 0.1, "quantized": 0.0, "low": -0.12, "high": -0.08}, "fail", 0.10,
            id="a change downwards that is surely beyond its limit",
        ),
        pytest.param(
            "max_change", 0.05, {"baseline": 0.1, "quantized": 0.1, "low": -0.04, "high": 0.03}, "pass", 0.0,
            id="a change that is within its limit in both directions",
        ),
        pytest.param(
            "max_change", 0.05, {"baseline": 0.1, "quantized": 0.1, "low": -0.04, "high": 0.06}, "inconclusive", 0.0,
            id="a change that may be beyond its limit in one direction",
        ),
        pytest.param(
            "max_relative_change", 0.05, {"baseline": 10.0, "quantized": 10.2, "low": 0.1, "high": 0.3}, "pass", 0.02,
            id="a change by a small share of the baseline",
        ),
        pytest.param(
            "max_relative_change", 0.05, {"baseline": 10.0, "quantized": 9.0, "low": -1.2, "high": -0.8}, "fail", 0.10,
            id="a change by a large share of the baseline",
        ),
        pytest.param(
            "min", 0.5, {"baseline": 0.9, "quantized": 0.4, "low": -0.6, "high": -0.4}, "fail", 0.1,
            id="a value below the minimum",
        ),
        pytest.param(
            "min", 0.5, {"baseline": 0.9, "quantized": 0.5, "low": -0.6, "high": -0.4}, "pass", 0.0,
            id="a value at the minimum, whatever the interval",
        ),
        pytest.param(
            "max", 0.5, {"baseline": 0.1, "quantized": 0.4, "low": 0.2, "high": 0.4}, "pass", -0.1,
            id="a value below the maximum",
        ),
        pytest.param(
            "max", 0.5, {"baseline": 0.1, "quantized": 0.6, "low": 0.2, "high": 0.4}, "fail", 0.1,
            id="a value above the maximum",
        ),
    ],
)  # fmt: skip
def test_each_limit(judge_one, make_gate, make_change, limit, value, change, outcome, harm):
    verdict = judge_one(make_change(**change), make_gate(limit=limit, value=value))
    assert verdict.outcome == outcome
    assert verdict.harm == pytest.approx(harm)
    assert verdict.passed == (outcome != "fail")


def test_no_limit_is_above_a_relative_change_from_zero(judge_one, make_gate, make_change):
    metric = "spectral.effective_rank"
    gate = make_gate(metric, "max_relative_change", 1e9)
    assert judge_one(make_change(metric, baseline=0.0, quantized=0.0), gate, inconclusive="pass").passed
    assert not judge_one(make_change(metric, baseline=0.0, quantized=1e-9), gate, inconclusive="pass").passed


def test_a_harm_of_exactly_the_limit_passes_despite_binary_fractions(judge_one, make_gate, make_change):
    assert 0.9 - (0.9 - 0.01) > 0.01
    change = make_change(baseline=0.9, quantized=0.9 - 0.01)
    assert judge_one(change, make_gate(value=0.01), inconclusive="fail").passed


@pytest.mark.parametrize(
    ("inconclusive", "quantized", "passed"),
    [
        pytest.param("estimate", 0.86, True, id="the estimate is within the limit"),
        pytest.param("estimate", 0.84, False, id="the estimate is beyond the limit"),
        pytest.param("pass", 0.84, True, id="all pass"),
        pytest.param("fail", 0.86, False, id="all fail"),
    ],
)
def test_the_policy_decides_what_is_inconclusive(judge_one, make_gate, make_change, inconclusive, quantized, passed):
    change = make_change(baseline=0.9, quantized=quantized, low=quantized - 0.92, high=quantized - 0.88)
    verdict = judge_one(change, make_gate(), inconclusive=inconclusive)
    assert (verdict.outcome, verdict.passed) == ("inconclusive", passed)
    assert verdict.samples_to_settle == 400  # half the width would do


@pytest.mark.parametrize(("quantized", "settle"), [(0.8, 100 * 100), (0.799, None), (0.801, 9612), (0.75, None)])
def test_an_estimate_at_its_limit_has_no_number_of_samples_that_would_settle_it(
    judge_one, make_gate, make_change, quantized, settle
):
    """Of 100 samples and an interval that reaches .5 to each side, a distance of .05 from .75 is the least told."""
    change = make_change(baseline=1.0, quantized=quantized, low=quantized - 1.5, high=quantized - 0.5)
    assert judge_one(change, make_gate(value=0.25)).samples_to_settle == settle


# What is not finite

BAD = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
ANY_POLICY = pytest.mark.parametrize(
    ("inconclusive", "correction"), [(i, c) for i in ("estimate", "fail", "pass") for c in CORRECTIONS]
)


@pytest.fixture
def make_generous_gate(make_gate):
    """Makes a gate that every number passes."""
    return lambda limit: make_gate(limit=limit, value=-1e300 if limit == "min" else 1e300)


@BAD
@ANY_POLICY
@pytest.mark.parametrize("limit", ["max_drop", "max_rise", "max_change", "max_relative_change", "min", "max"])
def test_a_value_that_is_not_finite_never_passes(
    judge_one, make_generous_gate, make_change, limit, inconclusive, correction, bad
):
    for baseline, quantized in ((bad, 0.5), (0.5, bad), (bad, bad)):
        for low, high in ((-0.1, 0.1), (bad, 0.1), (bad, bad), (None, None)):
            change = make_change(baseline=baseline, quantized=quantized, low=low, high=high)
            verdict = judge_one(change, make_generous_gate(limit), inconclusive=inconclusive, correction=correction)
            assert (verdict.outcome, verdict.passed) == ("fail", False)
            assert verdict.problem


@BAD
@ANY_POLICY
@pytest.mark.parametrize("limit", ["max_drop", "max_rise", "max_change", "max_relative_change"])
def test_a_bound_that_is_not_finite_never_passes(
    judge_one, make_generous_gate, make_change, limit, inconclusive, correction, bad
):
    for low, high in ((bad, 0.1), (-0.1, bad), (bad, bad), (-math.inf, math.inf)):
        change = make_change(baseline=0.5, quantized=0.5, low=low, high=high)
        verdict = judge_one(change, make_generous_gate(limit), inconclusive=inconclusive, correction=correction)
        assert (verdict.outcome, verdict.passed) == ("fail", False)


@ANY_POLICY
def test_a_change_with_a_problem_never_passes(judge_one, make_gate, make_change, inconclusive, correction):
    change = make_change("ece", baseline=0.1, quantized=0.1, low=0, high=0, problem="broken")
    verdict = judge_one(change, make_gate("ece", "max_rise", 1), inconclusive=inconclusive, correction=correction)
    assert (verdict.outcome, verdict.passed, verdict.problem) == ("fail", False, "broken")


# Corrections, on changes of known standard error

METRICS = ("accuracy", "top5_accuracy", "nll", "brier", "ece", "mce", "aurc", "confidence_gap")


@st.composite
def families(draw):
    """Draw gates with normal bounds: metric, limit, value of the limit, baseline, change and its standard error."""
    found = []
    for metric in draw(st.lists(st.sampled_from(METRICS), min_size=1, unique=True)):
        limit = draw(st.sampled_from(["max_drop", "max_rise", "max_change", "max_relative_change"]))
        baseline, delta = draw(st.floats(0.5, 2)), draw(st.floats(-0.3, 0.3))
        error, value = draw(st.floats(0.005, 0.1)), draw(st.floats(0, 0.3))
        found.append((metric, limit, value, baseline, delta, error))
    return found


@pytest.fixture(scope="module")
def judged(make_gate, make_change, make_rule):
    """Judges a family; gives the outcomes in its order."""

    def judged(family, alpha: float, correction: str, inconclusive: str = "estimate"):
        changes = {
            metric: make_change(
                metric,
                baseline=baseline,
                quantized=baseline + delta,
                bounds=lambda at, delta=delta, error=error: normal_interval(delta, error, at),
            )
            for metric, _, _, baseline, delta, error in family
        }
        gates = [make_gate(metric, limit, value) for metric, limit, value, *_ in family]
        rule = make_rule(error_probability=alpha, correction=correction, inconclusive=inconclusive)
        return [verdict.outcome for verdict in judge(changes, gates, rule)]

    return judged


def p_values(family):
    """Of the hypotheses that the harm is not within its limit, and that it is not beyond."""
    within, beyond = [], []
    for _, limit, value, baseline, delta, error in family:
        harm = {"max_drop": -delta, "max_rise": delta}.get(limit, abs(delta))
        most = value * baseline if limit == "max_relative_change" else value
        within.append(norm.sf((most - harm) / error))
        beyond.append(norm.sf((harm - most) / error))
    return tuple(np.where(np.array(p) < 0.5, p, 1.0) for p in (within, beyond))


def clear(p, level: float) -> bool:
    """Whether no p-value is so near the level that the precision of the search decides."""
    return bool((np.abs(np.log(np.maximum(p, 1e-300) / level)) > 1e-3).all())


@given(families(), st.floats(0.001, 0.05), st.sampled_from(CORRECTIONS))
def test_verdicts_are_those_of_p_values_found_otherwise_and_adjusted(judged, family, alpha, correction):
    adjust = {"holm": multiple_testing.holm, "benjamini-hochberg": multiple_testing.benjamini_hochberg}.get(
        correction, np.array
    )
    level = alpha * len(family) if correction == "holm" else alpha
    within, beyond = map(adjust, p_values(family))
    assume(level < 0.5 and clear(within, level) and clear(beyond, level))
    expected = [
        "pass" if w <= level else "fail" if b <= level else "inconclusive" for w, b in zip(within, beyond, strict=True)
    ]
    assert judged(family, alpha, correction) == expected


@given(families(), st.floats(0.001, 0.05))
def test_a_verdict_of_holm_is_never_weaker_than_bonferronis(judged, family, alpha):
    assume(alpha * len(family) < 0.5 and all(clear(p, alpha) for p in p_values(family)))
    for by_holm, by_bonferroni in zip(judged(family, alpha, "holm"), judged(family, alpha, "bonferroni"), strict=True):
        assert by_bonferroni in ("inconclusive", by_holm)


@given(families(), st.floats(0.001, 0.05))
def test_one_gate_is_the_same_under_every_correction(judged, family, alpha):
    assume(all(clear(p, alpha) for p in p_values(family[:1])))
    assert len({judged(family[:1], alpha, correction)[0] for correction in CORRECTIONS}) == 1


@given(families(), st.floats(0.001, 0.05), st.sampled_from(CORRECTIONS), st.data())
def test_the_order_of_gates_does_not_matter(judged, family, alpha, correction, data):
    order = data.draw(st.permutations(range(len(family))))
    outcomes = judged(family, alpha, correction)
    assert judged([family[i] for i in order], alpha, correction) == [outcomes[i] for i in order]


@given(families(), st.floats(0.001, 0.05), st.sampled_from(CORRECTIONS))
def test_a_laxer_limit_is_never_harder_to_hold(judged, family, alpha, correction):
    rank = ("fail", "inconclusive", "pass").index
    laxer = [(metric, limit, value + 0.1, *rest) for metric, limit, value, *rest in family]
    assume(all(clear(p, alpha) for f in (family, laxer) for p in p_values(f)))
    if correction in ("bonferroni", "none"):
        before, after = judged(family, alpha, correction), judged(laxer, alpha, correction)
        assert all(rank(a) >= rank(b) for a, b in zip(after, before, strict=True))


@given(families(), st.sampled_from(CORRECTIONS))
def test_what_is_far_from_its_limit_is_settled_by_any_correction(judged, family, correction):
    lax = [(metric, limit, 10, *rest) for metric, limit, _, *rest in family]
    assert judged(lax, 0.001, correction, "fail") == ["pass"] * len(family)


# The drift from accepted values


@pytest.mark.parametrize(
    ("metric", "before", "after", "outcome"),
    [
        pytest.param("accuracy", 0.9, 0.85, "pass", id="a drop of exactly the limit"),
        pytest.param("accuracy", 0.9, 0.84, "fail", id="a drop beyond the limit"),
        pytest.param("accuracy", 0.8, 0.99, "pass", id="a rise of what should be high"),
        pytest.param("nll", 0.5, 0.6, "fail", id="a rise of what should be low"),
        pytest.param("nll", 0.5, 0.1, "pass", id="a drop of what should be low"),
        pytest.param("confidence_gap", 0.0, -0.06, "fail", id="a change in either direction"),
        pytest.param("accuracy", 0.9, float("nan"), "fail", id="no number"),
    ],
)
def test_the_drift_is_judged_by_what_is_worse(make_gate, make_change, metric, before, after, outcome):
    gate = make_gate(metric, "max_drift")
    changes = {metric: make_change(metric, baseline=0.9, quantized=after)}
    (verdict,) = judge_drift(changes, [gate], AcceptedValues(values={metric: before}, where="s"))
    assert (verdict.outcome, verdict.passed) == (outcome, outcome == "pass")
    (verdict,) = judge_drift({}, [gate], AcceptedValues(values={metric: before}, where="s", renewing=True))
    assert not verdict.passed  # what is not measured is not accepted either


def test_a_much_worse_model_fails_every_gate_of_quality(by_hand):
    found = by_hand.verdicts(by_hand.measured(), by_hand.measured(noise=3.0), value=0.001)
    for name in ("accuracy", "balanced_accuracy", "nll", "brier", "aurc", "agreement", "kl", "flips.lost",
                 "ood.auroc.mcm", "ood.fpr95.mcm", "ood.auroc.knn.near"):  # fmt: skip
        assert found[name].outcome == "fail", name
        assert 0.001 < found[name].interval.low < found[name].harm < found[name].interval.high


@pytest.mark.parametrize("which", ["baseline", "quantized"])
def test_what_is_not_finite_fails_every_gate_it_touches_and_no_other(by_hand, which, broken):
    good, bad = by_hand.measured(), measure(by_hand.place(by_hand.embeddings(), broken, math.nan), by_hand.CLASSES)
    pair = (bad, good) if which == "baseline" else (good, bad)
    expected = by_hand.touched(broken) & set(by_hand.GATED)
    for correction in ("bonferroni", "holm"):
        found = by_hand.verdicts(*pair, by_hand.GATED, inconclusive="pass", correction=correction)
        assert {name for name, verdict in found.items() if not verdict.passed} == expected
        for name in expected:
            assert found[name].outcome == "fail"
            assert which in found[name].problem, name


def test_a_tower_without_a_patch_map_fails_the_gate_on_it(by_hand):
    name = "spectral.high_band_energy"
    verdict = by_hand.verdicts(by_hand.without("high_band"), by_hand.without("high_band"), [name], inconclusive="pass")[
        name
    ]
    assert not verdict.passed
    assert verdict.problem == (
        "the image tower shows no patch map; return `(features, map)` from encode_image, or give the ONNX graph a "
        "second output; or write `where_missing: skip` beside the limit"
    )


@pytest.mark.parametrize("which", ["baseline", "quantized"])
def test_what_only_one_of_the_models_shows_fails_the_gate_on_it(by_hand, which):
    name, shown, hidden = "ood.auroc.gl-mcm", by_hand.measured(), by_hand.without("local")
    pair = (hidden, shown) if which == "baseline" else (shown, hidden)
    verdict = by_hand.verdicts(*pair, [name, "accuracy"], inconclusive="pass")[name]
    assert (verdict.outcome, verdict.passed) == ("fail", False)
    assert verdict.problem.startswith(f"{which}: the image tower shows no local features; or write `where_missing:")


def test_only_what_a_model_does_not_show_may_be_skipped(by_hand, make_gate, broken):
    """What is not finite is no such thing, wherever it comes from."""
    shown, broken_one = by_hand.measured(), measure(by_hand.place(by_hand.embeddings(), broken, math.nan))
    gates = [make_gate(name) for name in by_hand.GATED]
    assert not_shown(compare(shown, broken_one, by_hand.GATED), gates).keys() <= {
        name for name in by_hand.GATED if name.startswith("recall.")
    }
    hidden = by_hand.without("high_band")
    name = "spectral.high_band_energy"
    assert list(not_shown(compare(shown, hidden, by_hand.GATED), gates)) == [name]
    for part in ("", ".letters", ".near"):
        gate = make_gate(f"ood.auroc.gl-mcm{part}")
        for pair in ((shown, by_hand.without("local")), (by_hand.without("local"),) * 2):
            assert "shows no local features" in not_shown(compare(*pair, [gate.metric]), [gate])[gate.metric]


def test_a_gated_metric_that_was_not_measured_fails(make_gate, make_rule):
    (verdict,) = judge({}, [make_gate("ood.auroc.mcm.letters", value=1.0)], make_rule(inconclusive="pass"))
    assert (verdict.outcome, verdict.passed) == ("fail", False)
    assert "does not measure it" in verdict.problem


@pytest.mark.parametrize("correction", ["bonferroni", "holm", "benjamini-hochberg", "none"])
@pytest.mark.parametrize(("n", "others"), [(1, 1), (1, 50), (2, 2), (3, 1), (7, 3), (50, 1)])
def test_of_few_samples_there_are_verdicts_and_none_passes_by_bounds_that_are_not_finite(
    by_hand, n, others, correction
):
    b, q = by_hand.measured(n=n, others=others), by_hand.measured(noise=0.6, seed=1, n=n, others=others)
    for pair in ((b, q), (b, b)):
        found = by_hand.verdicts(*pair, by_hand.GATED, value=0.1, inconclusive="pass", correction=correction)
        assert set(found) == set(by_hand.GATED)
        for verdict in found.values():
            if verdict.interval is not None and not all(map(math.isfinite, verdict.interval)):
                assert (verdict.outcome, verdict.passed) == ("fail", False), verdict.gate.metric
