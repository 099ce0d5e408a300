import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, ttest_1samp, ttest_ind, ttest_rel

from pytest_qreliab.statistics.influence import Estimate, paired_mean


def mirrored(x):
    """The same without any skewness."""
    return np.concatenate([x, 2 * x.mean() - x])


@given(st.integers(2, 60), st.floats(0.001, 0.4), st.integers(0, 1000))
def test_of_one_group_without_skewness_it_is_the_paired_t_interval(n, alpha, seed):
    b, change = np.random.default_rng(seed).normal(size=(2, n))
    b, q = np.tile(b, 2), np.tile(b, 2) + mirrored(change)
    expected = tuple(ttest_rel(q, b).confidence_interval(1 - 2 * alpha))
    for estimate in (paired_mean(q, "ID") - paired_mean(b, "ID"), paired_mean(q - b, "ID")):
        assert estimate.interval(alpha) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.01, 100), st.integers(0, 1000))
def test_of_two_groups_without_skewness_it_is_welchs_interval(n, m, scale, seed):
    rng = np.random.default_rng(seed)
    x, y = mirrored(rng.normal(size=n)), mirrored(scale * rng.normal(size=m))
    expected = ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
    interval = (paired_mean(x, "N") - paired_mean(y, "C")).interval(0.05)
    assert interval == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_a_count_of_rare_samples_has_nearly_poisson_bounds():
    """Ten of 2000 samples: the bounds on a Poisson mean from chi-squared quantiles, which Student's ratio misses."""
    x = np.repeat([0.0, 1.0], [1990, 10])
    for alpha in (0.05, 0.0005):
        low, high = paired_mean(x, "ID").interval(alpha)
        exact = chi2.ppf(alpha, 20) / 2 / 2000, chi2.isf(alpha, 22) / 2 / 2000
        student = ttest_1samp(x, 0).confidence_interval(1 - 2 * alpha)
        assert abs(low - exact[0]) < 0.7 * abs(student.low - exact[0])
        assert abs(high - exact[1]) < 0.7 * abs(student.high - exact[1])


def test_padding_widens_by_two_samples_as_influential_as_the_most_influential():
    x = np.repeat([0.0, 1.0], [96, 4])
    estimate = paired_mean(x, "ID")
    padded = estimate.pad()
    assert padded.value == estimate.value
    most = 1 - x.mean()
    np.testing.assert_allclose(padded.influences["ID"], [*(x - x.mean()), most, -most])
    np.testing.assert_allclose(estimate.pad(both_sides=False).influences["ID"], [*(x - x.mean()), most])
    assert paired_mean(np.ones(9), "ID").pad().interval(0.05) == (1.0, 1.0)


def test_sums_and_constants():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30))
    average = (paired_mean(x, "ID") + paired_mean(y, "ID")) / 2.0
    direct = paired_mean((x + y) / 2, "ID")
    assert average.value == pytest.approx(direct.value, rel=1e-12)
    np.testing.assert_allclose(average.influences["ID"], direct.influences["ID"], atol=1e-15)


def test_a_ratio_agrees_with_the_bootstrap():
    rng = np.random.default_rng(1)
    x = rng.normal(3, 1, 400)
    y = x + rng.normal(1, 1, 400)
    low, high = (paired_mean(x, "ID") / paired_mean(y, "ID")).interval(0.05)
    draws = rng.integers(0, 400, (2000, 400))
    replicates = x[draws].mean(axis=1) / y[draws].mean(axis=1)
    assert (low, high) == pytest.approx(tuple(np.quantile(replicates, [0.05, 0.95])), abs=0.1 * (high - low))


def test_over_zero_all_is_nan_and_nothing_is_raised():
    for ratio in (
        paired_mean([1, 2], "ID") / paired_mean([0, 0], "ID"),
        paired_mean([1, 2], "ID") / paired_mean([-1, 1], "OOD"),
        paired_mean([0, 0], "a") / 0.0,
    ):
        assert np.isnan(ratio.value)
        assert np.isnan(ratio.interval(0.05)).all()
        assert np.isnan((ratio - paired_mean([1, 2], "ID")).interval(0.05)).all()


def test_equal_models_leave_no_width():
    x = paired_mean(np.linspace(0.1, 0.9, 7), "ID")
    assert (x - x).interval(0.001) == (0.0, 0.0)
    assert ((x - x) / x).interval(0.001) == (0.0, 0.0)


def test_tiny_influences_keep_their_degrees_of_freedom():
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    large, small = (((paired_mean(x * s, "a") - paired_mean(y * s, "b")).interval(0.05)) for s in (1.0, 1e-120))
    assert tuple(bound * 1e120 for bound in small) == pytest.approx(tuple(large), rel=1e-9)


@pytest.mark.parametrize("values", [[1.0], [], [[1.0, 2.0]], [1.0, np.nan], [np.inf, 1.0]])
def test_values_that_cannot_be_used(values):
    with pytest.raises(ValueError, match=r"^ID: "):
        paired_mean(values, "ID")


def test_one_group_has_one_size():
    with pytest.raises(ValueError, match="'ID' has 2 samples in one estimate and 3 in another"):
        paired_mean([1, 2], "ID") - paired_mean([1, 2, 3], "ID")
    assert isinstance(paired_mean([1, 2], "a") - paired_mean([1, 2, 3], "b"), Estimate)


@given(st.integers(2, 12), st.integers(0, 1000))
def test_the_variance_of_clusters_is_that_of_a_regression_with_clustered_errors(clusters, seed):
    from statsmodels.api import OLS

    rng = np.random.default_rng(seed)
    units = np.concatenate([np.arange(clusters), rng.integers(0, clusters, 20)])
    x = rng.normal(size=len(units)) + rng.normal(size=clusters)[units]
    fitted = OLS(x, np.ones(len(x))).fit(cov_type="cluster", cov_kwds={"groups": units})
    estimate = paired_mean(x, "ID").clustered({"ID": units})
    (influence,) = estimate.influences.values()
    assert influence.var(ddof=1) / len(influence) == pytest.approx(float(fitted.bse[0]) ** 2, rel=1e-9)


def test_units_that_all_differ_change_nothing():
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    change = paired_mean(x, "a") - paired_mean(y, "b")
    apart = change.clustered({"a": np.arange(9)})
    assert apart.interval(0.05) == pytest.approx(change.interval(0.05), rel=1e-12)
    assert change.clustered({"c": np.arange(9)}) is change


def test_the_difference_of_two_sets_of_the_same_units_is_the_paired_one():
    x, noise = np.random.default_rng(0).normal(size=(2, 50))
    order = np.random.default_rng(1).permutation(50)
    difference = paired_mean((x + 0.1 * noise)[order], "counter") - paired_mean(x, "common")
    paired = difference.clustered({"counter": order, "common": np.arange(50)})
    assert paired.interval(0.05) == pytest.approx((paired_mean(0.1 * noise, "ID")).interval(0.05), rel=1e-9)
    assert np.ptp(difference.interval(0.05)) > 5 * np.ptp(paired.interval(0.05))


def test_intervals_of_clusters_cover_what_they_promise_and_those_of_samples_do_not():
    rng = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(1000):
        units = np.repeat(np.arange(40), 5)
        x = paired_mean(rng.normal(size=40)[units] + 0.5 * rng.normal(size=200), "ID")
        for place, estimate in enumerate((x.clustered({"ID": units}), x)):
            low, high = estimate.interval(0.05)
            covered[place] += low <= 0 <= high
    assert 0.87 < covered[0] / 1000 < 0.93
    assert covered[1] / 1000 < 0.7
