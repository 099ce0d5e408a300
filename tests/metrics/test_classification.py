import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from pytest_qreliab.metrics import classification


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, 7)) * 3, rng.integers(0, 7, 400)


def test_accuracy_agrees_with_sklearn(sample):
    logits, labels = sample
    assert classification.correct(logits, labels).mean() == accuracy_score(labels, logits.argmax(1))


def test_nll_agrees_with_sklearn_and_torch(sample):
    logits, labels = sample
    nll = classification.negative_log_likelihood(logits, labels)
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    assert nll.mean() == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-12)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(nll, expected.numpy(), rtol=1e-12)


def test_nll_is_not_clipped_where_a_probability_underflows():
    assert classification.negative_log_likelihood(np.array([[0.0, 2000.0]]), np.array([0]))[0] == 2000.0


def test_confidence_is_the_largest_probability(sample):
    logits, _ = sample
    np.testing.assert_allclose(
        classification.confidence(logits), torch.from_numpy(logits).softmax(1).max(1).values.numpy(), rtol=1e-12
    )


def test_balanced_accuracy_agrees_with_sklearn_when_classes_are_uneven():
    rng = np.random.default_rng(1)
    labels = rng.choice(5, 300, p=[0.6, 0.2, 0.1, 0.07, 0.03])
    predicted = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 5, 300))
    correct = (predicted == labels).astype(float)
    assert classification.balanced_accuracy(correct, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted), abs=1e-12
    )


@given(
    npst.arrays(np.int64, 30, elements=st.integers(0, 4)),
    npst.arrays(np.float64, 30, elements=st.sampled_from([0.0, 1.0])),
    st.integers(0, 2**32 - 1),
)
def test_balanced_accuracy_by_counts_equals_repeating_the_samples(labels, correct, seed):
    counts = np.random.default_rng(seed).multinomial(30, np.full(30, 1 / 30), size=2)
    by_counts = classification.balanced_accuracy(correct, labels, counts)
    for row, value in zip(counts, by_counts, strict=True):
        repeated = np.repeat(np.arange(30), row)
        assert value == pytest.approx(classification.balanced_accuracy(correct[repeated], labels[repeated]), abs=1e-12)
