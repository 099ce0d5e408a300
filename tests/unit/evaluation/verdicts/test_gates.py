"""Limits, corrections and what an inconclusive verdict becomes, on changes made by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

from pytest_qreliab.config.thresholds import Gate, Policy
from pytest_qreliab.evaluation.measurement.comparison import Change
from pytest_qreliab.evaluation.verdicts.gates import judge
from pytest_qreliab.statistics import multiple_testing
from pytest_qreliab.statistics.interval import Interval, normal_interval

CORRECTIONS = ("bonferroni", "holm", "benjamini-hochberg", "none")


def policy(inconclusive: str = "estimate", correction: str = "bonferroni") -> Policy:
    return Policy.model_validate(
        {"version": 1, "correction": correction, "inconclusive": inconclusive, "gates": {"ece": {"max": 1}}}
    )


def change(
    metric: str, baseline: float, quantized: float, low: float | None = None, high: float | None = None
) -> dict[str, Change]:
    bounds = None if low is None or high is None else (lambda alpha: Interval(low, high))
    return {metric: Change(metric, baseline, quantized, bounds, "by hand", "")}


@pytest.mark.parametrize(
    ("limit", "value", "baseline", "quantized", "low", "high", "outcome", "harm"),
    [
        ("max_drop", 0.05, 0.9, 0.88, -0.04, 0.0, "pass", 0.02),
        ("max_drop", 0.05, 0.9, 0.80, -0.12, -0.08, "fail", 0.10),
        ("max_drop", 0.05, 0.9, 0.86, -0.06, -0.02, "inconclusive", 0.04),
        ("max_drop", 0.05, 0.9, 0.99, 0.08, 0.10, "pass", -0.09),
        ("max_rise", 0.05, 0.1, 0.2, 0.08, 0.12, "fail", 0.10),
        ("max_rise", 0.05, 0.1, 0.0, -0.12, -0.08, "pass", -0.10),
        ("max_change", 0.05, 0.1, 0.0, -0.12, -0.08, "fail", 0.10),
        ("max_change", 0.05, 0.1, 0.1, -0.04, 0.03, "pass", 0.0),
        ("max_change", 0.05, 0.1, 0.1, -0.04, 0.06, "inconclusive", 0.0),
        ("max_relative_change", 0.05, 10.0, 10.2, 0.1, 0.3, "pass", 0.02),
        ("max_relative_change", 0.05, 10.0, 9.0, -1.2, -0.8, "fail", 0.10),
        ("min", 0.5, 0.9, 0.4, -0.6, -0.4, "fail", 0.1),
        ("min", 0.5, 0.9, 0.5, -0.6, -0.4, "pass", 0.0),
        ("max", 0.5, 0.1, 0.4, 0.2, 0.4, "pass", -0.1),
        ("max", 0.5, 0.1, 0.6, 0.2, 0.4, "fail", 0.1),
    ],
)
def test_each_limit(limit, value, baseline, quantized, low, high, outcome, harm):
    found = change("accuracy", baseline, quantized, low, high)
    (verdict,) = judge(found, [Gate("accuracy", limit, value, "t:1")], 100, 0.05, policy())
    assert verdict.outcome == outcome
    assert verdict.harm == pytest.approx(harm)
    assert verdict.passed == (outcome != "fail")


def test_no_limit_is_above_a_relative_change_from_zero():
    gate = Gate("spectral.effective_rank", "max_relative_change", 1e9, "t:1")
    assert judge(change("spectral.effective_rank", 0.0, 0.0), [gate], 10, 0.05, policy("pass"))[0].passed
    assert not judge(change("spectral.effective_rank", 0.0, 1e-9), [gate], 10, 0.05, policy("pass"))[0].passed


def test_a_harm_of_exactly_the_limit_passes_despite_binary_fractions():
    found = change("accuracy", 0.9, 0.9 - 0.01)
    assert 0.9 - (0.9 - 0.01) > 0.01
    assert judge(found, [Gate("accuracy", "max_drop", 0.01, "t:1")], 100, 0.05, policy("fail"))[0].passed


@pytest.mark.parametrize(("setting", "quantized", "passed"), [("estimate", 0.86, True), ("estimate", 0.84, False),
                                                            ("pass", 0.84, True), ("fail", 0.86, False)])  # fmt: skip
def test_the_policy_decides_what_is_inconclusive(setting, quantized, passed):
    found = change("accuracy", 0.9, quantized, quantized - 0.9 - 0.02, quantized - 0.9 + 0.02)
    (verdict,) = judge(found, [Gate("accuracy", "max_drop", 0.05, "t:1")], 100, 0.05, policy(setting))
    assert (verdict.outcome, verdict.passed) == ("inconclusive", passed)
    assert verdict.samples_to_settle == 400  # half the width would do


# What is not finite

BAD = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
ANY_POLICY = pytest.mark.parametrize(
    ("inconclusive", "correction"), [(i, c) for i in ("estimate", "fail", "pass") for c in CORRECTIONS]
)


def generous(limit: str) -> Gate:
    return Gate("accuracy", limit, -1e300 if limit == "min" else 1e300, "t:1")


@BAD
@ANY_POLICY
@pytest.mark.parametrize("limit", ["max_drop", "max_rise", "max_change", "max_relative_change", "min", "max"])
def test_a_value_that_is_not_finite_never_passes(limit, inconclusive, correction, bad):
    for baseline, quantized in ((bad, 0.5), (0.5, bad), (bad, bad)):
        for bounds in ((-0.1, 0.1), (bad, 0.1), (bad, bad), (None, None)):
            found = change("accuracy", baseline, quantized, *bounds)
            (verdict,) = judge(found, [generous(limit)], 100, 0.05, policy(inconclusive, correction))
            assert (verdict.outcome, verdict.passed) == ("fail", False)
            assert verdict.problem


@BAD
@ANY_POLICY
@pytest.mark.parametrize("limit", ["max_drop", "max_rise", "max_change", "max_relative_change"])
def test_a_bound_that_is_not_finite_never_passes(limit, inconclusive, correction, bad):
    for bounds in ((bad, 0.1), (-0.1, bad), (bad, bad), (-math.inf, math.inf)):
        (verdict,) = judge(
            change("accuracy", 0.5, 0.5, *bounds), [generous(limit)], 100, 0.05, policy(inconclusive, correction)
        )
        assert (verdict.outcome, verdict.passed) == ("fail", False)


@ANY_POLICY
def test_a_change_with_a_problem_never_passes(inconclusive, correction):
    found = {"ece": Change("ece", 0.1, 0.1, lambda alpha: Interval(0, 0), "by hand", "broken")}
    (verdict,) = judge(found, [Gate("ece", "max_rise", 1, "t:1")], 9, 0.05, policy(inconclusive, correction))
    assert (verdict.outcome, verdict.passed, verdict.problem) == ("fail", False, "broken")


# Corrections, on changes of known standard error

METRICS = ("accuracy", "top5_accuracy", "nll", "brier", "ece", "mce", "aurc", "confidence_gap")


@st.composite
def families(draw):
    """Gates with normal bounds, and of each the harm, its standard error and the limit, in units of the harm."""
    found = []
    for metric in draw(st.lists(st.sampled_from(METRICS), min_size=1, unique=True)):
        limit = draw(st.sampled_from(["max_drop", "max_rise", "max_change", "max_relative_change"]))
        baseline, delta = draw(st.floats(0.5, 2)), draw(st.floats(-0.3, 0.3))
        error, value = draw(st.floats(0.005, 0.1)), draw(st.floats(0, 0.3))
        found.append((Gate(metric, limit, value, "t:1"), baseline, delta, error))
    return found


def judged(family, alpha: float, correction: str, inconclusive: str = "estimate"):
    changes = {
        gate.metric: Change(
            gate.metric,
            baseline,
            baseline + delta,
            lambda at, delta=delta, error=error: normal_interval(delta, error, at),
            "by hand",
            "",
        )
        for gate, baseline, delta, error in family
    }
    gates = [gate for gate, *_ in family]
    return [verdict.outcome for verdict in judge(changes, gates, 100, alpha, policy(inconclusive, correction))]


def p_values(family):
    """Of the hypotheses that the harm is not within its limit, and that it is not beyond."""
    within, beyond = [], []
    for gate, baseline, delta, error in family:
        harm = {"max_drop": -delta, "max_rise": delta}.get(gate.limit, abs(delta))
        limit = gate.value * baseline if gate.limit == "max_relative_change" else gate.value
        within.append(norm.sf((limit - harm) / error))
        beyond.append(norm.sf((harm - limit) / error))
    return tuple(np.where(np.array(p) < 0.5, p, 1.0) for p in (within, beyond))


def clear(p, level: float) -> bool:
    """Whether no p-value is so near the level that the precision of the search decides."""
    return bool((np.abs(np.log(np.maximum(p, 1e-300) / level)) > 1e-3).all())


@given(families(), st.floats(0.001, 0.05), st.sampled_from(CORRECTIONS))
def test_verdicts_are_those_of_p_values_found_otherwise_and_adjusted(family, alpha, correction):
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
def test_a_verdict_of_holm_is_never_weaker_than_bonferronis(family, alpha):
    assume(alpha * len(family) < 0.5 and all(clear(p, alpha) for p in p_values(family)))
    for by_holm, by_bonferroni in zip(judged(family, alpha, "holm"), judged(family, alpha, "bonferroni"), strict=True):
        assert by_bonferroni in ("inconclusive", by_holm)


@given(families(), st.floats(0.001, 0.05))
def test_one_gate_is_the_same_under_every_correction(family, alpha):
    assume(all(clear(p, alpha) for p in p_values(family[:1])))
    assert len({judged(family[:1], alpha, correction)[0] for correction in CORRECTIONS}) == 1


@given(families(), st.floats(0.001, 0.05), st.sampled_from(CORRECTIONS), st.data())
def test_the_order_of_gates_does_not_matter(family, alpha, correction, data):
    order = data.draw(st.permutations(range(len(family))))
    outcomes = judged(family, alpha, correction)
    assert judged([family[i] for i in order], alpha, correction) == [outcomes[i] for i in order]


@given(families(), st.floats(0.001, 0.05), st.sampled_from(CORRECTIONS))
def test_a_laxer_limit_is_never_harder_to_hold(family, alpha, correction):
    rank = ("fail", "inconclusive", "pass").index
    laxer = [(Gate(g.metric, g.limit, g.value + 0.1, g.where), *rest) for g, *rest in family]
    assume(all(clear(p, alpha) for f in (family, laxer) for p in p_values(f)))
    if correction in ("bonferroni", "none"):
        before, after = judged(family, alpha, correction), judged(laxer, alpha, correction)
        assert all(rank(a) >= rank(b) for a, b in zip(after, before, strict=True))


@given(families(), st.sampled_from(CORRECTIONS))
def test_what_is_far_from_its_limit_is_settled_by_any_correction(family, correction):
    lax = [(Gate(g.metric, g.limit, 10, g.where), *rest) for g, *rest in family]
    assert judged(lax, 0.001, correction, "fail") == ["pass"] * len(family)
