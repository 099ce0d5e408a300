import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from pytest_qreliab.metrics.robustness import relative_drop
from pytest_qreliab.statistics.influence import mean
from pytest_qreliab.statistics.ratios import relative_drop_interval

counts = st.integers(0, 60)


def score_by_brute_force(both: int, gained: int, lost: int, ratio: float) -> float:
    """The score statistic with the restricted likelihood maximised numerically, not by the quadratic."""
    total = both + gained + lost

    def fitted_lost(fitted_gained: float) -> float:
        return total - ratio * (total - fitted_gained)

    def minus_log_likelihood(fitted_gained: float) -> float:
        of_lost = fitted_lost(fitted_gained)
        cells = ((both, total - fitted_gained - of_lost), (gained, fitted_gained), (lost, of_lost))
        return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

    bounds = (max(0, total - total / ratio), total * ratio / (1 + ratio))
    fitted = minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (both + gained - ratio * (both + lost)) / np.sqrt(ratio * (fitted + fitted_lost(fitted)))


@pytest.mark.parametrize(("both", "gained", "lost"), [(30, 2, 9), (700, 3, 9), (5, 20, 4), (900, 0, 6), (12, 1, 1)])
def test_bounds_are_where_the_score_test_turns(both, gained, lost):
    for alpha in (0.05, 0.001):
        low, high = relative_drop_interval(both, gained, lost, alpha)
        assert low < 1 - (both + gained) / (both + lost) < high
        assert score_by_brute_force(both, gained, lost, 1 - low) == pytest.approx(-norm.isf(alpha), abs=2e-3)
        assert score_by_brute_force(both, gained, lost, 1 - high) == pytest.approx(norm.isf(alpha), abs=2e-3)


@given(counts, counts, counts, st.floats(0.0005, 0.3))
def test_holds_the_estimate_and_swapping_the_models_inverts_the_ratio(both, gained, lost, alpha):
    assume(both + lost and both + gained)
    low, high = relative_drop_interval(both, gained, lost, alpha)
    assert low <= 1 - (both + gained) / (both + lost) + 1e-12
    assert 1 - (both + gained) / (both + lost) <= high + 1e-12 <= 1 + 1e-12
    swapped = relative_drop_interval(both, lost, gained, alpha)
    assert 1 - swapped.low == pytest.approx(1 / (1 - high), rel=1e-6)
    assert 1 - swapped.high == pytest.approx(1 / (1 - low), rel=1e-6)


def test_without_a_sample_that_differs_it_has_a_width():
    z2 = norm.isf(0.05) ** 2
    low, high = relative_drop_interval(80, 0, 0, 0.05)
    assert (low, high) == pytest.approx((-z2 / 80, z2 / (80 + z2)), rel=1e-6)


def test_of_many_samples_it_is_the_interval_of_the_influences():
    baseline = np.arange(20000) < 14000
    quantized = baseline.copy()
    quantized[:500], quantized[-300:] = False, True
    expected = relative_drop(mean(baseline, "ID"), mean(quantized, "ID")).interval(0.01)
    assert relative_drop_interval(13500, 300, 500, 0.01) == pytest.approx(expected, abs=3e-4)


def test_it_holds_its_level_where_few_samples_differ_and_influences_do_not():
    """A true drop of 2 of 70 points that shows in 2 of 100 samples, 4000 times: how often the upper bound misses it."""
    z_misses = wald_misses = 0
    outcomes, times = np.unique(
        np.random.default_rng(0).multinomial(100, [0.68, 0.0, 0.02, 0.3], 4000)[:, :3], axis=0, return_counts=True
    )
    for (both, gained, lost), count in zip(outcomes.tolist(), times.tolist(), strict=True):
        z_misses += count * (relative_drop_interval(both, gained, lost, 0.05).high < 0.02 / 0.7)
        baseline = np.arange(100) < both + lost
        wald = relative_drop(mean(baseline, "ID"), mean(np.arange(100) < both, "ID"))
        wald_misses += count * (wald.interval(0.05).high < 0.02 / 0.7)
    assert z_misses / 4000 < 0.06
    assert wald_misses / 4000 > 0.1


def test_accuracies_of_zero():
    assert all(math.isnan(bound) for bound in relative_drop_interval(0, 5, 0, 0.05))
    low, high = relative_drop_interval(0, 0, 9, 0.05)
    assert 0 < low < high == 1.0


@pytest.mark.parametrize("given", [(-1, 2, 3, 0.05), (1, 2, 3, 0.0), (1, 2, 3, 0.5), (1, 2, 3, math.nan)])
def test_input_that_cannot_be_used(given):
    with pytest.raises(ValueError, match="both"):
        relative_drop_interval(*given)
