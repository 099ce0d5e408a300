"""Tables by name, the Brier score's uncertainty and the logit scale."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pytest_qreliab.metrics import calibration, classification


def predictions(n: int = 50, classes: int = 10, seed: int = 0, noise: float = 0.0):
    """The same samples for every noise."""
    rng = np.random.default_rng(seed)
    logits, labels = 2 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    return classification.predict(torch.from_numpy(logits + noise * rng.normal(size=logits.shape)), labels)


def test_the_tables_of_a_name_hold_it():
    found = predictions()
    for name in calibration.BINNED:
        (table,) = calibration.build_tables(found, [name])
        assert name in table.metrics_from_sums(table.sums())
    assert len(calibration.build_tables(found)) == 3


def test_tables_are_built_once():
    found = predictions()
    (first,), (second,) = calibration.build_tables(found, ["ece"]), calibration.build_tables(found, ["mce", "ece"])
    assert first is second


def test_the_mean_over_equal_sets_is_that_of_one():
    (table,) = calibration.build_tables(predictions(), ["ece"])
    mean = calibration.MeanTable([table, table])
    masks = np.eye(50)[:, :3] + np.eye(50)[:, 3:6]
    for given_masks in (None, masks):
        expected = table.metrics_from_sums(table.sums(given_masks))
        for name, values in mean.metrics_from_sums(mean.sums(given_masks)).items():
            np.testing.assert_allclose(values, expected[name])


def test_equal_models_have_the_error_of_two_samples_that_differ():
    same = [predictions(200)]
    errors = calibration.change_errors(same, same, ["ece", "brier.resolution", "mce"])
    assert errors == pytest.approx({**errors, "ece": 2**0.5 / 200, "brier.resolution": 2**0.5 / 400, "mce": 0.0})


def test_the_same_set_twice_has_the_error_of_one():
    b, q = predictions(200), predictions(200, noise=0.5)
    once, twice = (calibration.change_errors([b] * times, [q] * times, ["ece"]) for times in (1, 2))
    assert once["ece"] > 2**0.5 / 200
    assert twice == pytest.approx(once, rel=1e-4)


@settings(max_examples=15)
@given(st.floats(2, 20), st.integers(0, 20))
def test_the_logit_scale_that_drew_the_labels_is_found_again(scale, seed):
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(-1, 1, (4000, 5))
    gumbel = rng.gumbel(size=cosines.shape)
    labels = (scale * cosines + gumbel).argmax(axis=1)
    assert calibration.fit_logit_scale(cosines, labels) == pytest.approx(scale, rel=0.25)


def test_the_logit_scale_is_that_of_logistic_regression_without_an_intercept():
    """Of two classes: the one weight of the difference of cosines, with Platt's targets as sample weights."""
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (300, 2))
    labels = (8 * (cosines[:, 1] - cosines[:, 0]) + rng.logistic(size=300) > 0).astype(np.int64)
    difference = np.tile(cosines[:, [1]] - cosines[:, [0]], (2, 1))
    weights = np.repeat([1 - 1 / 302, 1 / 302], 300)
    oracle = LogisticRegression(fit_intercept=False, C=1e12, tol=1e-10)
    oracle.fit(difference, np.concatenate([labels, 1 - labels]), sample_weight=weights)
    assert calibration.fit_logit_scale(cosines, labels) == pytest.approx(float(oracle.coef_[0, 0]), rel=1e-4)


def test_the_logit_scale_stays_finite_where_all_are_right_and_ignores_a_bias():
    cosines = np.eye(3)[np.arange(60) % 3] * 0.2
    fitted = calibration.fit_logit_scale(cosines, np.arange(60) % 3)
    # The confidence is then Platt's target, 61 / 62.
    assert np.exp(0.2 * fitted) / (np.exp(0.2 * fitted) + 2) == pytest.approx(61 / 62, rel=1e-5)
    assert calibration.fit_logit_scale(cosines + 7, np.arange(60) % 3) == pytest.approx(fitted, rel=1e-5)
    with pytest.raises(ValueError, match="NaN or infinity"):
        calibration.fit_logit_scale(cosines * np.nan, np.arange(60) % 3)


def test_one_sample_has_a_logit_scale():
    assert 0.01 <= calibration.fit_logit_scale(np.array([[0.3, 0.1]]), np.array([0])) <= 1e4
