import numpy as np
import pytest
from scipy.stats import norm

from pytest_qreliab.metrics.ood import placements
from pytest_qreliab.statistics.delong import Placements, difference_interval, variance


def of(id_scores, ood_scores) -> Placements:
    return Placements(*placements(np.asarray(id_scores, float), np.asarray(ood_scores, float)))


def test_published_example():
    entry = of([1, 5, 4], [3, 5, 5, 9])
    assert entry.ood.mean() == pytest.approx(0.75)
    assert variance([entry]) == pytest.approx(0.0416667, abs=5e-8)


def test_variance_is_the_brute_force_double_sum():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, 12).astype(float), rng.integers(1, 9, 9).astype(float)
    wins = (y[:, None] > x) + (y[:, None] == x) / 2
    expected = wins.mean(1).var(ddof=1) / len(y) + wins.mean(0).var(ddof=1) / len(x)
    assert variance([of(x, y)]) == pytest.approx(expected, rel=1e-12)


def test_mean_over_sets_counts_their_covariance_through_the_shared_samples():
    rng = np.random.default_rng(1)
    x, near, far = rng.normal(0, 1, 80), rng.normal(0.5, 1, 60), rng.normal(1, 1, 40)
    entries = [of(x, near), of(x, far)]
    covariance = np.cov(entries[0].id, entries[1].id)[0, 1] / len(x)
    expected = (variance(entries[:1]) + variance(entries[1:]) + 2 * covariance) / 4
    assert variance(entries) == pytest.approx(expected, rel=1e-12)


def test_interval_of_a_difference_agrees_with_the_paired_bootstrap():
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 1, 300), rng.normal(1, 1, 250)
    x2, y2 = x + rng.normal(0, 0.5, 300), y + rng.normal(0, 0.5, 250)
    low, high = difference_interval([of(x, y)], [of(x2, y2)], alpha=0.05)
    estimate = of(x2, y2).ood.mean() - of(x, y).ood.mean()
    assert (low + high) / 2 == pytest.approx(estimate, abs=1e-12)
    replicates = []
    for _ in range(600):
        i, j = rng.integers(0, 300, 300), rng.integers(0, 250, 250)
        replicates.append(of(x2[i], y2[j]).ood.mean() - of(x[i], y[j]).ood.mean())
    assert (high - low) / 2 == pytest.approx(norm.isf(0.05) * np.std(replicates), rel=0.12)


def test_identical_models_leave_no_width():
    entry = of([0, 1, 2], [1, 2, 3])
    assert difference_interval([entry], [entry], 0.05) == (0.0, 0.0)
