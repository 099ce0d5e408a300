import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from pytest_qreliab.statistics import clusters
from pytest_qreliab.statistics.influence import mean


def t_interval(x, alpha: float):
    """The interval on a mean, on which scipy agrees: see test_influence."""
    return mean(x, "ID").interval(alpha)


def unequal_clusters(seed: int, number: int):
    """Differences that hang together within clusters of 1 to 6, in mixed order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(number), rng.integers(1, 7, number)))
    return rng.normal(0.3, 1, number)[ids] + rng.normal(0, 0.5, len(ids)), ids


@given(st.integers(0, 1000), st.integers(2, 30), st.floats(0.001, 0.2))
def test_the_interval_is_statsmodels_cluster_robust_one(seed, number, alpha):
    differences, ids = unequal_clusters(seed, number)
    # Every cluster once more, mirrored: without skewness, which statsmodels does not correct for.
    differences = np.concatenate([differences, 2 * differences.mean() - differences])
    ids = np.concatenate([ids, ids + ids.max() + 1])
    fit = sm.OLS(differences, np.ones(len(ids))).fit(
        cov_type="cluster", cov_kwds={"groups": ids, "use_correction": True, "df_correction": True}, use_t=True
    )
    expected = tuple(fit.conf_int(2 * alpha)[0])
    # Any ids will do here; statsmodels wants them to count up from 0.
    assert clusters.interval(differences, 5 - 3 * ids, alpha) == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_the_interval_agrees_with_resampling_clusters():
    differences, ids = unequal_clusters(4, 400)
    low, high = clusters.interval(differences, ids, 0.05)

    counts = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), size=4000)
    weights = clusters.sample_counts(counts, ids)
    resampled = weights @ differences / weights.sum(axis=1)
    assert tuple(np.quantile(resampled, [0.05, 0.95])) == pytest.approx((low, high), abs=0.1 * (high - low))
    # As if all were independent it would be much too narrow.
    assert np.ptp(t_interval(differences, 0.05)) < 0.7 * (high - low)


@given(st.integers(0, 1000))
def test_clusters_of_equal_size_are_their_means_and_names_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(6, 4))
    names = np.repeat(np.array(["owl", "cat", "emu", "dog", "bee", "ant"]), 4)
    order = rng.permutation(24)
    of_samples = clusters.interval(values.ravel()[order], names[order], 0.05)
    assert of_samples == pytest.approx(t_interval(values.mean(axis=1), 0.05), rel=1e-9, abs=1e-12)


@given(st.integers(0, 1000))
def test_a_grid_is_a_cluster_per_image(seed):
    grid = np.random.default_rng(seed).normal(size=(3, 5, 8))
    of_grid = clusters.grid_mean(grid, "ID")
    flat = clusters.mean(grid.ravel(), np.tile(np.arange(8), 15), "ID")
    assert of_grid.value == pytest.approx(flat.value, abs=1e-12)
    np.testing.assert_allclose(of_grid.influences["ID"], flat.influences["ID"], atol=1e-12)


def test_each_sample_a_cluster_is_the_paired_t_interval():
    x = np.random.default_rng(0).normal(size=20)
    assert clusters.interval(x, np.arange(20), 0.01) == pytest.approx(t_interval(x, 0.01), rel=1e-12)


def test_a_grid_that_is_treated_as_independent_misses_and_as_clusters_does_not():
    """500 grids of 2 x 5 cells over 40 images that are hard or easy in every cell: share of bounds below the truth."""
    rng = np.random.default_rng(0)
    below_by_image, below_by_cell = 0, 0
    for _ in range(500):
        grid = rng.normal(size=40) + rng.normal(size=(2, 5, 40))
        below_by_image += clusters.grid_mean(grid, "ID").interval(0.05).high < 0
        below_by_cell += t_interval(grid.ravel(), 0.05).high < 0
    assert 0.02 < below_by_image / 500 < 0.08
    assert below_by_cell / 500 > 0.15


def test_counts_of_samples_are_those_of_their_clusters():
    counts = np.array([[2, 0, 1], [0, 3, 0]])
    np.testing.assert_array_equal(clusters.sample_counts(counts, ["b", "a", "c", "b"]), [[0, 2, 1, 0], [3, 0, 0, 3]])
    grid = np.arange(12.0).reshape(2, 2, 3)
    per_sample = clusters.sample_counts(counts, np.tile(np.arange(3), 4))
    np.testing.assert_allclose(per_sample @ grid.ravel() / 12, counts @ grid.mean(axis=(0, 1)) / 3)


def test_input_that_cannot_be_used():
    with pytest.raises(ValueError, match="at least 2 clusters"):
        clusters.interval([1.0, 2.0], [7, 7], 0.05)
    with pytest.raises(ValueError, match="clusters of shape"):
        clusters.interval([1.0, 2.0], [7, 7, 8], 0.05)
    with pytest.raises(ValueError, match="NaN or infinity"):
        clusters.interval([1.0, np.nan], [7, 8], 0.05)
    with pytest.raises(ValueError, match="for 3 clusters"):
        clusters.sample_counts(np.ones((5, 2), dtype=np.int64), [0, 1, 2])


def test_a_metric_per_cell_takes_the_counts_of_images():
    """Resampling images moves a grid's mean as much as its interval says, no copy of the counts for each cell."""
    rng = np.random.default_rng(1)
    grid = rng.normal(size=300) + rng.normal(size=(2, 3, 300))
    counts = rng.multinomial(300, np.full(300, 1 / 300), size=4000)
    resampled = np.mean([counts @ cell / 300 for cell in grid.reshape(6, 300)], axis=0)
    low, high = clusters.grid_mean(grid, "ID").interval(0.05)
    assert (high - low) / 2 == pytest.approx(norm.isf(0.05) * resampled.std(), rel=0.06)
