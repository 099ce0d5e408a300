import numpy as np
import pytest
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from pandas import DataFrame
from scipy.stats import t, ttest_1samp
from statsmodels.stats.anova import anova_lm

from pytest_qreliab.statistics.interval import Interval
from pytest_qreliab.statistics.seeds import interval, regression_test

alphas = st.floats(0.001, 0.4)


def t_interval(x, alpha: float):
    return Interval(*ttest_1samp(x, 0).confidence_interval(1 - 2 * alpha))


def draw(rng, seeds: int, n: int, of_seed: float, of_sample: float, of_rest: float):
    """Differences of mean 0 whose variance components are given."""
    return (
        rng.normal(0, of_seed**0.5, (seeds, 1))
        + rng.normal(0, of_sample**0.5, n)
        + rng.normal(0, of_rest**0.5, (seeds, n))
    )


@given(st.integers(2, 12), st.integers(2, 9), alphas, st.integers(0, 1000))
def test_where_samples_are_alike_it_is_the_t_test_over_seeds(seeds, n, alpha, seed):
    x = np.random.default_rng(seed).normal(0.5, 1, seeds)
    differences = np.repeat(x[:, None], n, axis=1)
    assert interval(differences, alpha) == pytest.approx(t_interval(x, alpha), rel=1e-7, abs=1e-9)
    expected = ttest_1samp(x, 0.1, alternative="greater").pvalue
    assert regression_test(differences, 0.1) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.integers(2, 5), st.integers(2, 40), alphas, st.integers(0, 1000))
def test_where_seeds_are_alike_it_is_the_t_test_over_samples(seeds, n, alpha, seed):
    x = np.random.default_rng(seed).normal(0.2, 1, n)
    differences = np.tile(x, (seeds, 1))
    assert interval(differences, alpha) == pytest.approx(t_interval(x, alpha), rel=1e-7, abs=1e-9)
    expected = ttest_1samp(x, 0.1, alternative="greater").pvalue
    assert regression_test(differences, 0.1) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_width_comes_from_the_mean_squares_of_statsmodels():
    differences = draw(np.random.default_rng(0), 4, 25, 0.1, 1, 0.5)
    row, column = np.indices(differences.shape)
    frame = DataFrame({"y": differences.ravel(), "seed": row.ravel(), "sample": column.ravel()})
    table = anova_lm(smf.ols("y ~ C(seed) + C(sample)", frame).fit())
    of_seed, of_sample, rest = table["sum_sq"] / table["df"]
    for alpha in (0.05, 0.05 / 18):
        variance = t.isf(alpha, 3) ** 2 * of_seed + t.isf(alpha, 24) ** 2 * (of_sample - rest)
        low, high = interval(differences, alpha)
        assert (high - low) / 2 == pytest.approx((variance / 100) ** 0.5, rel=1e-9)
        assert (high + low) / 2 == pytest.approx(differences.mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("components", "least", "most"),
    [
        pytest.param((1, 1, 1), 0.025, 0.075, id="seeds dominate"),
        pytest.param((0, 1, 0.01), 0.025, 0.075, id="samples dominate"),
        pytest.param((0.02, 2, 1), 0.005, 0.07, id="both"),
        pytest.param((0, 0, 1), 0.025, 0.075, id="neither"),
    ],
)
@pytest.mark.parametrize("seeds", [3, 6])
def test_bounds_miss_as_often_as_they_may(components, least, most, seeds):
    """Both bounds of 600 intervals at .05 each; between seeds and samples alone they miss less often."""
    rng = np.random.default_rng(seeds)
    bounds = [interval(draw(rng, seeds, 100, *components), 0.05) for _ in range(600)]
    for missed in (np.mean([b.low > 0 for b in bounds]), np.mean([b.high < 0 for b in bounds])):
        assert least <= missed <= most


def test_few_seeds_that_look_alike_by_luck_do_not_pass_a_corrected_level():
    """Two seeds at the level of 18 gates: the share of 3000 runs whose bound misses stays near .0028.

    Satterthwaite's degrees of freedom would let it rise to .03.
    """
    rng = np.random.default_rng(0)
    missed = sum(interval(draw(rng, 2, 60, 1, 0.6, 0.6), 0.05 / 18).high < 0 for _ in range(3000))
    assert missed / 3000 < 0.008


def test_samples_alone_would_miss():
    """What the seeds add counts: pooling them, or testing over the samples, is wrong far too often."""
    rng = np.random.default_rng(1)
    runs = [draw(rng, 4, 100, 0.2, 1, 1) for _ in range(400)]
    assert np.mean([t_interval(x.mean(axis=0), 0.05).high < 0 for x in runs]) > 0.15
    assert np.mean([interval(x, 0.05).high < 0 for x in runs]) < 0.075


@given(st.integers(2, 5), st.integers(2, 20), st.floats(-1, 1), alphas, st.integers(0, 1000))
def test_the_test_rejects_where_the_bound_is_above_the_limit(seeds, n, limit, alpha, seed):
    differences = draw(np.random.default_rng(seed), seeds, n, 0.3, 1, 0.5)
    p = regression_test(differences, limit)
    assert 0 <= p <= 1
    if abs(p - alpha) > 1e-9:
        assert (p < alpha) == (interval(differences, alpha).low > limit)
    assert p + regression_test(-differences, -limit) == pytest.approx(1)


@given(st.integers(0, 1000), st.floats(1e-6, 1e6), st.floats(-10, 10))
def test_scale_and_shift_and_order_do_not_matter(seed, scale, shift):
    rng = np.random.default_rng(seed)
    differences = draw(rng, 3, 10, 0.3, 1, 0.5)
    p = regression_test(differences, 0.2)
    assert regression_test((differences + shift) * scale, (0.2 + shift) * scale) == pytest.approx(p, rel=1e-6)
    shuffled = differences[rng.permutation(3)][:, rng.permutation(10)]
    assert regression_test(shuffled, 0.2) == pytest.approx(p, rel=1e-9)


def test_differences_that_are_all_equal():
    same = np.full((3, 5), 0.25)
    assert interval(same, 0.01) == (0.25, 0.25)
    assert (regression_test(same, 0.2), regression_test(same, 0.25), regression_test(same, 0.3)) == (0.0, 1.0, 1.0)


def test_a_mean_at_the_limit_and_far_from_it():
    around = np.array([[1.0, -1.0, 0.5], [-0.5, 1.0, -1.0]])
    assert regression_test(around) == 0.5
    assert regression_test(np.random.default_rng(0).normal(1e9, 1e-6, (6, 2000))) < 1e-30


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (5,), (2, 2, 2), (0, 0)])
def test_shapes_that_cannot_be_used(shape):
    for call in (lambda x: interval(x, 0.05), regression_test):
        with pytest.raises(ValueError, match="shape must be at least"):
            call(np.ones(shape))


def test_values_that_cannot_be_used():
    with pytest.raises(ValueError, match="NaN or infinity"):
        regression_test([[1.0, np.inf], [1.0, 2.0]])
    with pytest.raises(ValueError, match="the limit is nan"):
        regression_test(np.ones((2, 2)), np.nan)
    for alpha in (0.0, 0.6, np.nan):
        with pytest.raises(ValueError, match="alpha is"):
            interval(np.ones((2, 2)), alpha)
