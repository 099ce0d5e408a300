import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm
from statsmodels.stats.power import NormalIndPower, TTestPower

from pytest_qreliab.statistics import power
from pytest_qreliab.statistics.proportions import score_interval

# The level of one gate, alone and of 18 gates.
ALPHAS = (0.05, 0.05 / 18)
CHURNS = (0.01, 0.03, 0.1)


def test_known_value_for_accuracy():
    assert power.minimum_detectable(1.0, 1, 0.05) == pytest.approx(2.49, abs=0.005)
    assert power.minimum_detectable(0.03**0.5, 1000, 0.05) == pytest.approx(0.0136, abs=5e-5)


@given(st.floats(0.01, 10), st.integers(2, 10**6), st.floats(0.0001, 0.3), st.floats(0.5, 0.99))
def test_agrees_with_statsmodels_normal_power(spread, n, alpha, wanted):
    effect = power.minimum_detectable(spread, n, alpha, wanted)
    # ratio=0 is a sample against a known mean.
    theirs = NormalIndPower().power(effect / spread, n, alpha, ratio=0, alternative="larger")
    assert theirs == pytest.approx(wanted, abs=1e-9)


def test_of_many_samples_it_is_the_power_of_the_t_test():
    effect = power.minimum_detectable(2.0, 1000, 0.01)
    theirs = TTestPower().power(effect / 2.0, 1000, 0.01, alternative="larger")
    assert theirs == pytest.approx(0.8, abs=0.003)


@given(st.floats(0, 10), st.floats(0.003, 3), st.floats(0.0001, 0.3), st.floats(0.5, 0.99))
def test_samples_needed_is_the_least_that_will_do(spread, effect, alpha, wanted):
    n = power.samples_needed(spread, effect, alpha, wanted)
    assert power.minimum_detectable(spread, n, alpha, wanted) <= effect
    assert n == 1 or power.minimum_detectable(spread, n - 1, alpha, wanted) > effect


@given(st.integers(1, 10**6), st.floats(0.0001, 0.3))
def test_samples_needed_for_what_n_samples_detect_is_n(n, alpha):
    assert power.samples_needed(1.0, power.minimum_detectable(1.0, n, alpha), alpha) == n


def test_no_spread():
    assert power.minimum_detectable(0.0, 10, 0.05) == 0.0
    assert power.samples_needed(0.0, 0.01, 0.05) == 1


@given(st.integers(1, 40), st.just(0.0) | st.floats(1e-6, 1), st.floats(0, 1), st.floats(0.001, 0.3))
def test_power_of_a_drop_by_brute_force_over_all_outcomes(n, churn, share, alpha):
    """Over every number of gained and lost samples, by what the test below shows of the interval."""
    drop = churn * share
    lost_of_changed = (churn + drop) / 2 / churn if churn else 0.0
    expected = 0.0
    for changed in range(n + 1):
        lost = np.arange(changed + 1)
        chances = binom.pmf(changed, n, churn) * binom.pmf(lost, changed, lost_of_changed)
        shows = 2 * lost - changed > norm.isf(alpha) * changed**0.5
        expected += chances[shows].sum()
    assert power.drop_power(drop, churn, n, alpha) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 400), st.data(), st.floats(0.0005, 0.3))
def test_a_bound_above_zero_is_a_matter_of_lost_and_gained(n, data, alpha):
    changed = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, changed))
    gained, margin = changed - lost, norm.isf(alpha) * changed**0.5
    if abs(lost - gained - margin) > 1e-6:
        assert (score_interval(gained, lost, n, alpha).high < 0) == (lost - gained > margin)


def simulated_power(drop: float, churn: float, n: int, alpha: float, draws: int = 800) -> float:
    """The share of draws in which the lower bound of the drop is above 0."""
    cells = [(churn - drop) / 2, (churn + drop) / 2, 1 - churn]
    outcomes = np.random.default_rng(0).multinomial(n, cells, size=draws)
    pairs, times = np.unique(outcomes[:, :2], axis=0, return_counts=True)
    shows = [score_interval(int(gained), int(lost), n, alpha).high < 0 for gained, lost in pairs]
    return float(times[shows].sum()) / draws


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [500, 2000, 10000])
def test_the_announced_drop_is_found_in_four_runs_of_five(n, alpha):
    for churn in CHURNS:
        drop = power.minimum_detectable_drop(churn, n, alpha)
        assert simulated_power(drop, max(churn, drop), n, alpha) == pytest.approx(0.8, abs=0.05), churn


def test_where_the_simple_formula_misses():
    """Where few samples change: it announces drops larger than the churn, or as large as a handful of samples."""
    missed = {}
    for alpha in ALPHAS:
        for n in (500, 2000, 10000):
            for churn in CHURNS:
                drop = power.minimum_detectable(churn**0.5, n, alpha)
                found = power.drop_power(drop, max(churn, drop), n, alpha)
                if abs(found - 0.8) > 0.05:
                    missed[round(alpha, 4), n, churn] = round(found, 2)
    assert missed == {
        (0.05, 500, 0.01): 0.92,
        (0.0028, 500, 0.01): 0.56,
        (0.0028, 500, 0.03): 0.91,
        (0.0028, 2000, 0.01): 0.87,
    }


@given(st.floats(0, 1), st.integers(1, 5000), st.floats(0.0005, 0.3), st.floats(0.5, 0.95))
def test_the_drop_has_the_power_asked_for(churn, n, alpha, wanted):
    drop = power.minimum_detectable_drop(churn, n, alpha, wanted)
    if math.isnan(drop):
        assert power.drop_power(1.0, 1.0, n, alpha) < wanted
    else:
        assert power.drop_power(drop, max(churn, drop), n, alpha) == pytest.approx(wanted, abs=1e-5 * n)


@given(st.integers(3, 5000), st.floats(0, 0.2), st.floats(0, 0.2))
def test_more_churn_hides_larger_drops(n, churn, more):
    """Up to the steps of whole samples."""
    assert power.minimum_detectable_drop(churn, n, 0.05) <= power.minimum_detectable_drop(churn + more, n, 0.05) + 1 / n


def test_without_churn_three_lost_samples_show_at_a_level_of_5_percent():
    drop = power.minimum_detectable_drop(0.0, 1000, 0.05)
    assert binom.sf(2, 1000, drop) == pytest.approx(0.8, abs=1e-5)


def test_of_many_changed_samples_it_is_the_simple_formula():
    assert power.minimum_detectable_drop(0.03, 50000, 0.05) == pytest.approx(
        power.minimum_detectable(0.03**0.5, 50000, 0.05), rel=2e-3
    )


def test_too_few_samples_show_no_drop_at_all():
    assert math.isnan(power.minimum_detectable_drop(0.03, 2, 0.05))


@pytest.mark.parametrize(
    "call",
    [
        lambda: power.minimum_detectable(-1.0, 10, 0.05),
        lambda: power.minimum_detectable(math.nan, 10, 0.05),
        lambda: power.minimum_detectable(math.inf, 10, 0.05),
        lambda: power.minimum_detectable(1.0, 0, 0.05),
        lambda: power.minimum_detectable(1.0, 10, 0.0),
        lambda: power.minimum_detectable(1.0, 10, 0.05, 1.0),
        lambda: power.samples_needed(1.0, 0.0, 0.05),
        lambda: power.samples_needed(1.0, math.nan, 0.05),
        lambda: power.drop_power(0.2, 0.1, 10, 0.05),
        lambda: power.drop_power(0.1, 0.2, 0, 0.05),
        lambda: power.minimum_detectable_drop(-0.1, 10, 0.05),
        lambda: power.minimum_detectable_drop(math.nan, 10, 0.05),
        lambda: power.minimum_detectable_drop(0.1, 10, 0.05, 0.0),
    ],
)
def test_input_that_cannot_be_used(call):
    with pytest.raises(ValueError, match=r" (is|of) "):
        call()
