import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp

from pytest_qreliab.statistics import bootstrap
from pytest_qreliab.statistics.means import t_interval


@given(st.integers(2, 50), st.floats(0.001, 0.2), st.integers(0, 1000))
def test_t_interval_agrees_with_scipy(n, alpha, seed):
    x = np.random.default_rng(seed).normal(size=n)
    expected = ttest_1samp(x, 0).confidence_interval(1 - 2 * alpha)
    assert t_interval(x, alpha) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_equal_differences_leave_no_width():
    assert t_interval(np.full(9, 0.25), 0.01) == (0.25, 0.25)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.0005])
def test_bootstrap_of_a_mean_agrees_with_theory(alpha):
    x = np.random.default_rng(0).normal(1, 2, 400)
    low, high = bootstrap.interval(lambda counts: counts @ x / counts.sum(axis=1), [400], alpha)
    half = norm.isf(alpha) * x.std() / 20
    assert (x.mean() - low, high - x.mean()) == (pytest.approx(half, rel=0.1), pytest.approx(half, rel=0.1))


def test_bootstrap_is_repeatable_and_needs_no_order():
    x = np.random.default_rng(0).normal(size=50)

    def mean(counts):
        return counts @ x / 50

    first = bootstrap.interval(mean, [50], 0.05)
    np.random.default_rng().random(1000)
    assert bootstrap.interval(mean, [50], 0.05) == first


def test_bootstrap_chunks_do_not_change_the_bounds(monkeypatch):
    x = np.random.default_rng(0).normal(size=30)
    whole = bootstrap.interval(lambda counts: counts @ x, [30], 0.05)
    monkeypatch.setattr(bootstrap, "CHUNK_ELEMENTS", 1000)
    assert bootstrap.interval(lambda counts: counts @ x, [30], 0.05) == pytest.approx(whole, abs=1e-12)


def test_bootstrap_draws_groups_independently_at_their_own_size():
    x, y = np.arange(20.0), np.arange(35.0)
    low, high = bootstrap.interval(lambda i, j: i @ x / 20 - j @ y / 35, [20, 35], 0.05)
    half = norm.isf(0.05) * np.hypot(x.std() / 20**0.5, y.std() / 35**0.5)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
