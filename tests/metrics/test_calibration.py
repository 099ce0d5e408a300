import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torchmetrics.functional.classification import multiclass_calibration_error

from pytest_qreliab.metrics import calibration


def test_published_example_of_torchmetrics():
    probabilities = np.array([[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]])
    correct = (probabilities.argmax(1) == np.array([0, 1, 2, 0])).astype(float)
    ece = calibration.expected_calibration_error(probabilities.max(1), correct, bins=3)
    assert ece == pytest.approx(0.2000, abs=5e-5)


def test_agrees_with_torchmetrics_off_the_edges():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2000, 10)) * 2)
    labels = torch.from_numpy(rng.integers(0, 10, 2000))
    probabilities = logits.softmax(1)
    confidence, predicted = probabilities.max(1)
    ours = calibration.expected_calibration_error(confidence.numpy(), (predicted == labels).double().numpy())
    theirs = multiclass_calibration_error(probabilities, labels, num_classes=10, n_bins=15)
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_bins_are_open_below_and_closed_above():
    """torchmetrics puts an edge one bin higher: the documented disagreement."""
    edges = np.array([0.0, 1 / 15, 2 / 15, 14 / 15, 1.0, np.nextafter(1 / 15, 1)])
    np.testing.assert_array_equal(calibration.bin_indices(edges), [0, 0, 1, 13, 14, 1])


def test_exact_values():
    assert calibration.expected_calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.0
    assert calibration.expected_calibration_error(np.array([1.0, 1.0]), np.array([0.0, 0.0])) == 1.0
    assert calibration.expected_calibration_error(np.array([0.9, 0.9]), np.array([1.0, 0.0])) == pytest.approx(0.4)


probabilities = npst.arrays(np.float64, 40, elements=st.floats(0, 1))
hits = npst.arrays(np.float64, 40, elements=st.sampled_from([0.0, 1.0]))


@given(probabilities, hits, st.permutations(range(40)))
def test_order_of_samples_does_not_matter(confidence, correct, order):
    ece = calibration.expected_calibration_error(confidence, correct)
    assert 0 <= ece <= 1
    assert calibration.expected_calibration_error(confidence[order], correct[order]) == pytest.approx(ece, abs=1e-12)


@given(probabilities, hits, st.integers(0, 2**32 - 1))
def test_counts_equal_repeating_the_samples(confidence, correct, seed):
    counts = np.random.default_rng(seed).multinomial(40, np.full(40, 1 / 40), size=1)
    repeated = np.repeat(np.arange(40), counts[0])
    assert calibration.expected_calibration_error(confidence, correct, counts)[0] == pytest.approx(
        calibration.expected_calibration_error(confidence[repeated], correct[repeated]), abs=1e-12
    )


# The logit scale


@given(st.floats(2, 20), st.integers(0, 20))
def test_the_logit_scale_that_drew_the_labels_is_found_again(scale, seed):
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(-1, 1, (4000, 5))
    gumbel = rng.gumbel(size=cosines.shape)
    labels = (scale * cosines + gumbel).argmax(axis=1)
    assert calibration.fit_logit_scale(cosines, labels) == pytest.approx(scale, rel=0.25)


def test_the_logit_scale_is_that_of_logistic_regression_without_an_intercept():
    """Of two classes: the one weight of the difference of cosines, with Platt's targets as sample weights."""
    from sklearn.linear_model import LogisticRegression

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
