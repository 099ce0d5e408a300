import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from pytest_qreliab.statistics.proportions import effective_counts, mcnemar, score_interval, wilson_interval


def test_mcnemar_published_value():
    assert mcnemar(121, 59) == pytest.approx(4.434449e-06, rel=1e-6)


def test_mcnemar_without_discordant_pairs():
    assert mcnemar(0, 0) == 1.0


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_agrees_with_statsmodels(gained, lost):
    table = [[5, gained], [lost, 5]]
    assert mcnemar(gained, lost) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-9)


def score_by_brute_force(gained: int, lost: int, n: int, delta: float) -> float:
    """The score statistic with the restricted likelihood maximised numerically, not by Tango's formula."""
    low, high = max(0.0, -delta), (1 - delta) / 2

    def minus_log_likelihood(p_lost: float) -> float:
        cells = ((gained, p_lost + delta), (lost, p_lost), (n - gained - lost, 1 - 2 * p_lost - delta))
        return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

    p_lost = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (gained - lost - n * delta) / np.sqrt(n * (2 * p_lost + delta - delta**2))


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 2, 50), (3, 9, 200), (0, 5, 60), (7, 0, 900), (40, 38, 1000)])
def test_score_interval_bounds_are_where_the_score_test_turns(gained, lost, n):
    for alpha in (0.05, 0.001):
        low, high = score_interval(gained, lost, n, alpha)
        assert low < (gained - lost) / n < high
        assert score_by_brute_force(gained, lost, n, low) == pytest.approx(norm.isf(alpha), abs=2e-3)
        assert score_by_brute_force(gained, lost, n, high) == pytest.approx(-norm.isf(alpha), abs=2e-3)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(80, 400), st.floats(0.0005, 0.2))
def test_score_interval_is_symmetric_and_holds_the_estimate(gained, lost, n, alpha):
    low, high = score_interval(gained, lost, n, alpha)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    mirrored = score_interval(lost, gained, n, alpha)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-high, abs=1e-9), pytest.approx(-low, abs=1e-9))


def test_without_discordant_pairs_the_interval_has_the_known_width():
    z2 = norm.isf(0.025) ** 2
    low, high = score_interval(0, 0, 100, 0.025)
    assert high == pytest.approx(z2 / (100 + z2), rel=1e-9)
    assert low == pytest.approx(-high, rel=1e-9)


def test_all_pairs_discordant():
    assert score_interval(0, 20, 20, 0.05).low == -1.0
    assert score_interval(20, 0, 20, 0.05).high == 1.0


@given(st.integers(1, 500), st.data(), st.floats(0.0005, 0.2))
def test_wilsons_interval_is_statsmodels(n, data, alpha):
    hits = data.draw(st.integers(0, n))
    expected = proportion_confint(hits, n, alpha=2 * alpha, method="wilson")
    assert wilson_interval(hits, n, alpha) == pytest.approx(expected, abs=1e-12)
    shifted = wilson_interval(hits, n, alpha, shift=-1.0)
    assert shifted == pytest.approx(tuple(bound - 1 for bound in expected), abs=1e-12)


@given(st.integers(0, 200), st.floats(0.0005, 0.2))
def test_wilsons_interval_mirrors(hits, alpha):
    low, high = wilson_interval(hits, 200, alpha)
    assert wilson_interval(200 - hits, 200, alpha) == pytest.approx((1 - high, 1 - low), abs=1e-12)


changes = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.sampled_from([0.5, 1.0, 4.0])), min_size=1)


@given(changes)
def test_effective_counts_keep_the_weighted_mean_and_its_variance(pairs):
    change, weights = np.transpose(pairs)
    weights = weights / weights.mean()
    gained, lost, n = effective_counts(change, weights)
    assert (gained - lost) / n == pytest.approx((weights * change).mean(), abs=1e-12)
    if change.any():  # under the null of no difference: the sum of squares over the square of the total
        assert (gained + lost) / n**2 == pytest.approx(((weights * change) ** 2).sum() / len(change) ** 2, rel=1e-9)
    else:
        assert n == pytest.approx(len(change) ** 2 / (weights**2).sum())


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1))
def test_without_weights_counts_are_counts(change):
    change = np.array(change)
    expected = ((change > 0).sum(), (change < 0).sum(), len(change))
    assert effective_counts(change) == pytest.approx(expected)
    assert effective_counts(change, np.ones(len(change))) == pytest.approx(expected)


@given(changes, st.floats(0.0005, 0.2))
def test_the_score_interval_of_weighted_changes_holds_their_mean(pairs, alpha):
    change, weights = np.transpose(pairs)
    weights = weights / weights.mean()
    low, high = score_interval(*effective_counts(change, weights), alpha)
    assert -1 <= low <= (weights * change).mean() + 1e-9
    assert (weights * change).mean() - 1e-9 <= high <= 1


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 2), (0, 3, 3)])
def test_the_score_interval_of_few_samples_reaches_far(gained, lost, n):
    low, high = score_interval(gained, lost, n, 0.05)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert high - low > 0.4
