import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from pytest_qreliab.statistics.interval import Interval, normal_interval, skewed_interval, widen_if_empty


@given(st.floats(-10, 10), st.floats(0, 10), st.floats(0.0001, 0.4))
def test_without_skewness_it_is_the_normal_interval(estimate, error, alpha):
    low, high = normal_interval(estimate, error, alpha)
    assert (low, high) == pytest.approx(tuple(norm.interval(1 - 2 * alpha, estimate, error or 1e-300)), abs=1e-9)


@given(st.floats(-2, 2), st.floats(1.01, 4))
def test_opposite_skewness_mirrors_the_bounds(skewness, quantile):
    low, high = skewed_interval(0.0, 1.0, skewness, quantile)
    assert skewed_interval(0.0, 1.0, -skewness, quantile) == pytest.approx((-high, -low), abs=1e-9)
    assert low < 0 < high


def test_the_bounds_solve_halls_transformation():
    s, z = 0.2, 1.7
    for bound, sign in zip(skewed_interval(0.0, 1.0, s, z), (1, -1), strict=True):
        t = -bound  # Student's ratio of an estimate 0 to the bound
        assert t + s * t**2 / 3 + s**2 * t**3 / 27 + s / 6 == pytest.approx(sign * z, abs=1e-9)


def test_the_bounds_move_continuously_to_those_without_skewness():
    small = skewed_interval(0.0, 1.0, 1.0001e-6, 2.0)
    assert small == pytest.approx((-2.0, 2.0), abs=1e-4)


@given(st.integers(1, 10_000), st.floats(0.0001, 0.4))
def test_an_empty_interval_reaches_as_far_as_the_rule_of_three(n, alpha):
    low, high = widen_if_empty(lambda alpha: Interval(0.5, 0.5), n)(alpha)
    assert (low, high) == pytest.approx((0.5 - math.log(1 / alpha) / n, 0.5 + math.log(1 / alpha) / n))
    # The share that shows in none of n samples with probability alpha, where it is small.
    if high - 0.5 < 0.01:
        assert (1 - (high - 0.5)) ** n == pytest.approx(alpha, rel=0.1)


def test_an_interval_with_a_width_is_left_as_it_is():
    assert widen_if_empty(lambda alpha: Interval(-alpha, alpha), 3)(0.05) == Interval(-0.05, 0.05)
    assert np.isnan(widen_if_empty(lambda alpha: Interval(math.nan, math.nan), 3)(0.05)).all()
