import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_qreliab.metrics import binning
from pytest_qreliab.statistics import half_sampling


class Mean:
    """A table whose one metric is the mean of its values."""

    def __init__(self, values):
        self._rows = np.stack([values, np.ones_like(values)])

    def sums(self, masks=None):
        return self._rows @ (np.ones((self._rows.shape[1], 1)) if masks is None else masks)

    def metrics_from_sums(self, sums):
        return {"mean": sums[0] / sums[1]}


def mean_error(b, q) -> float:
    return half_sampling.half_sample_errors([(Mean(b), Mean(q))], len(b))["mean"]


@pytest.mark.parametrize("n", [40, 101, 1000])
def test_of_a_mean_it_is_the_standard_error_of_the_paired_difference(n):
    rng = np.random.default_rng(n)
    b = rng.normal(size=n)
    q = b + 0.3 * rng.normal(size=n)
    assert mean_error(b, q) == pytest.approx((q - b).std(ddof=1) / n**0.5, rel=0.1)


def overconfident(seed: int, n: int, by: float):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.1, 0.9, n)
    confidence = p + by * rng.random(n)
    return binning.EqualWidthBins(confidence, (rng.random(n) < p).astype(float))


def pair(seed: int, n: int):
    return overconfident(seed, n, 0.05), overconfident(seed, n, 0.1)


def test_of_ece_clear_of_its_noise_it_is_what_many_sets_of_samples_show():
    tables = [pair(seed, 2000) for seed in range(200)]
    deltas = [
        float((q.metrics_from_sums(q.sums())["ece"] - b.metrics_from_sums(b.sums())["ece"])[0]) for b, q in tables
    ]
    errors = [half_sampling.half_sample_errors([t], 2000)["ece"] for t in tables[:10]]
    assert np.mean(errors) == pytest.approx(np.std(deltas), rel=0.2)


def test_equal_input_gives_equal_results():
    assert half_sampling.half_sample_errors([pair(0, 300)], 300) == half_sampling.half_sample_errors(
        [pair(0, 300)], 300
    )


def test_one_table_does_not_disturb_another():
    alone = half_sampling.half_sample_errors([pair(0, 300)], 300)
    values = np.random.default_rng(0).normal(size=(2, 300))
    together = half_sampling.half_sample_errors([(Mean(values[0]), Mean(values[1])), pair(0, 300)], 300)
    assert {name: together[name] for name in alone} == alone


@pytest.mark.parametrize("elements", [1, 3 * 97 * 7, 3 * 97 * 100])
def test_how_many_cuts_are_made_at_once_makes_no_difference(elements, monkeypatch):
    whole = half_sampling.half_sample_errors([pair(1, 97)], 97)
    monkeypatch.setattr(half_sampling, "MASK_ELEMENTS", elements)
    assert half_sampling.half_sample_errors([pair(1, 97)], 97) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_too_few_samples_to_quarter_leave_it_infinite(n):
    assert set(half_sampling.half_sample_errors([pair(0, n)], n).values()) == {math.inf}


@settings(max_examples=20)
@given(st.integers(8, 40), st.integers(0, 1000))
def test_of_few_samples_it_is_a_number(n, seed):
    found = half_sampling.half_sample_errors([pair(seed, n)], n)
    assert all(math.isfinite(error) and error >= 0 for error in found.values())


def test_identical_models_have_none():
    one, same = overconfident(0, 60, 0.1), overconfident(0, 60, 0.1)
    assert set(half_sampling.half_sample_errors([(one, same)], 60).values()) == {0.0}


def test_the_order_of_samples_matters_little():
    rng = np.random.default_rng(0)
    b, q = rng.normal(size=(2, 200))
    order = rng.permutation(200)
    assert mean_error(b[order], q[order]) == pytest.approx(mean_error(b, q), rel=0.15)


def test_it_goes_with_the_scale_of_the_metric():
    b, q = np.random.default_rng(0).normal(size=(2, 50))
    assert mean_error(1000 * b, 1000 * q) == pytest.approx(1000 * mean_error(b, q), rel=1e-4)
