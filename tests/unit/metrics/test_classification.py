import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import rel_entr, softmax
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    recall_score,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import multiclass_accuracy

from pytest_qreliab.metrics import classification
from pytest_qreliab.metrics.classification import Predictions


def predict(logits, labels) -> Predictions:
    return classification.predict(torch.as_tensor(np.asarray(logits, dtype=np.float64)), np.asarray(labels))


def drawn(classes: int, n: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, classes)) * 3, rng.integers(0, classes, n)


@st.composite
def tied_samples(draw):
    """Logits of few distinct values, so that ties are the rule, and labels."""
    n, classes = draw(st.integers(1, 12)), draw(st.integers(2, 8))
    logits = draw(npst.arrays(np.float64, (n, classes), elements=st.integers(-2, 2).map(float)))
    return logits, draw(npst.arrays(np.int64, n, elements=st.integers(0, classes - 1)))


BY_COLUMN = ("predicted", "in_top5", "confidence", "nll", "brier")


def test_accuracy_is_sklearns():
    logits, labels = drawn(7)
    assert predict(logits, labels).correct.mean() == accuracy_score(labels, logits.argmax(1))


@pytest.mark.parametrize("classes", [6, 7, 100])
def test_top5_accuracy_is_sklearns_and_torchmetrics(classes):
    logits, labels = drawn(classes)
    ours = predict(logits, labels).in_top5.mean()
    assert ours == top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    theirs = multiclass_accuracy(
        torch.from_numpy(logits), torch.from_numpy(labels), num_classes=classes, top_k=5, average="micro"
    )
    assert ours == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 7])
def test_nll_is_sklearns_log_loss_and_torchs_cross_entropy(classes):
    logits, labels = drawn(classes)
    nll = predict(logits, labels).nll
    assert nll.mean() == pytest.approx(log_loss(labels, softmax(logits, axis=1), labels=range(classes)), rel=1e-12)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(nll, expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 7])
def test_brier_is_sklearns_multiclass_one(classes):
    logits, labels = drawn(classes)
    theirs = brier_score_loss(labels, softmax(logits, axis=1), labels=range(classes), scale_by_half=False)
    assert predict(logits, labels).brier.mean() == pytest.approx(theirs, rel=1e-12)


def test_sklearn_halves_the_brier_score_of_two_classes():
    """The documented disagreement: there it is the squared error of one probability, here of both."""
    logits, labels = drawn(2)
    of_one = brier_score_loss(labels, softmax(logits, axis=1)[:, 1])
    assert predict(logits, labels).brier.mean() == pytest.approx(2 * of_one, rel=1e-12)


def test_confidence_is_the_largest_probability():
    logits, labels = drawn(7)
    np.testing.assert_allclose(predict(logits, labels).confidence, softmax(logits, axis=1).max(axis=1), rtol=1e-12)


@pytest.fixture
def uneven():
    rng = np.random.default_rng(1)
    labels = rng.choice(5, 300, p=[0.6, 0.2, 0.1, 0.07, 0.03])
    return labels, np.where(rng.random(300) < 0.7, labels, rng.integers(0, 5, 300))


def test_balanced_accuracy_and_recalls_are_sklearns_when_classes_are_uneven(uneven):
    labels, predicted = uneven
    correct = (predicted == labels).astype(float)
    assert classification.balanced_accuracy(correct, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted), abs=1e-12
    )
    np.testing.assert_allclose(
        classification.recalls(correct, labels, 5), recall_score(labels, predicted, average=None), atol=1e-12
    )


def test_balanced_accuracy_leaves_absent_classes_out_and_macro_recall_counts_them_as_zero():
    """The documented disagreement: sklearn's balanced accuracy warns of them, its macro recall is lower."""
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    correct = (predicted == labels).astype(float)
    assert classification.balanced_accuracy(correct, labels) == 0.75
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert balanced_accuracy_score(labels, predicted) == 0.75
        assert recall_score(labels, predicted, average="macro") == 0.5
    np.testing.assert_array_equal(classification.recalls(correct, labels, 3), [1.0, 0.5, np.nan])


def test_kl_divergence_is_scipys():
    (b, labels), (q, _) = drawn(9), drawn(9, seed=1)
    expected = rel_entr(softmax(b, axis=1), softmax(q, axis=1)).sum(axis=1)
    np.testing.assert_allclose(
        classification.kl_divergence(predict(b, labels), predict(q, labels)), expected, rtol=1e-5, atol=2e-6
    )


def test_kl_divergence_comes_in_chunks_alike(monkeypatch):
    (b, labels), (q, _) = drawn(9), drawn(9, seed=1)
    pair = predict(b, labels), predict(q, labels)
    whole = classification.kl_divergence(*pair)
    monkeypatch.setattr(classification, "CHUNK_ROWS", 7)
    np.testing.assert_array_equal(classification.kl_divergence(*pair), whole)


def test_of_equal_logits_the_first_class_is_larger_and_sklearn_says_the_last():
    """The documented disagreement about top-5."""
    logits = np.zeros((6, 6))
    found = predict(logits, range(6))
    assert found.predicted.tolist() == [0] * 6
    assert found.in_top5.tolist() == [1, 1, 1, 1, 1, 0]
    theirs = [top_k_accuracy_score([label], logits[:1], k=5, labels=range(6)) for label in range(6)]
    assert theirs == [0, 1, 1, 1, 1, 1]


@given(tied_samples())
def test_top5_by_brute_force_over_a_stable_order(sample):
    logits, labels = sample
    found = predict(logits, labels)
    order = np.argsort(-logits, axis=1, kind="stable")
    np.testing.assert_array_equal(found.predicted, order[:, 0])
    np.testing.assert_array_equal(found.in_top5, (order[:, :5] == labels[:, None]).any(axis=1))
    assert (found.in_top5 >= found.correct).all()


@given(tied_samples())
def test_of_up_to_five_classes_the_label_is_always_among_five(sample):
    logits, labels = sample
    if logits.shape[1] <= 5:
        assert predict(logits, labels).in_top5.all()


@given(tied_samples(), st.data())
def test_each_sample_stands_for_itself(sample, data):
    logits, labels = sample
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    shuffled, taken = predict(logits[order], labels[order]), predict(logits, labels).take(order)
    for name in classification.PER_SAMPLE:
        np.testing.assert_allclose(getattr(shuffled, name), getattr(taken, name), rtol=1e-12, atol=1e-15)


@given(tied_samples())
def test_joined_parts_are_the_whole(sample):
    logits, labels = sample
    whole = predict(logits, labels)
    parts = [whole.take(np.array([i])) for i in range(len(whole))]
    joined = classification.join(parts)
    for name in classification.PER_SAMPLE:
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


@given(tied_samples(), st.floats(-1e3, 1e3))
def test_a_shift_of_all_logits_changes_nothing(sample, shift):
    logits, labels = sample
    before, after = predict(logits, labels), predict(logits + round(shift), labels)
    for name in BY_COLUMN:
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-9, atol=1e-12)


@given(tied_samples())
def test_scores_stay_in_their_ranges(sample):
    logits, labels = sample
    found = predict(logits, labels)
    assert ((found.confidence >= 1 / logits.shape[1] - 1e-12) & (found.confidence <= 1)).all()
    assert (found.nll >= 0).all()
    assert ((found.brier >= 0) & (found.brier <= 2)).all()
    assert (classification.kl_divergence(found, found) == 0).all()


@pytest.mark.parametrize("classes", [2, 3, 30])
def test_probabilities_of_exactly_zero_and_one(classes):
    logits = np.full((2, classes), -1e4)
    logits[:, 0] = 1e4
    found = predict(logits, [0, 1])
    np.testing.assert_array_equal(found.confidence, [1, 1])
    np.testing.assert_array_equal(found.nll, [0, 2e4])
    np.testing.assert_array_equal(found.brier, [0, 2])
    flat = predict(np.zeros((2, classes)), [0, 1])
    np.testing.assert_allclose(classification.kl_divergence(found, flat), np.log(classes), rtol=1e-6)
    assert np.isfinite(classification.kl_divergence(flat, found)).all()


def test_nll_is_not_clipped_where_a_probability_underflows():
    assert predict([[0.0, 2000.0]], [0]).nll[0] == 2000.0


@given(npst.arrays(np.float64, 30, elements=st.sampled_from([0.0, 1.0])), st.integers(0, 4))
def test_of_one_class_alone_balanced_accuracy_is_accuracy(correct, label):
    labels = np.full(30, label)
    assert classification.balanced_accuracy(correct, labels) == pytest.approx(correct.mean(), abs=1e-12)
    np.testing.assert_array_equal(classification.class_weights(labels), np.ones(30))


@given(npst.arrays(np.int64, 30, elements=st.integers(0, 4)))
def test_class_weights_have_mean_one_and_count_classes_alike(labels):
    weights = classification.class_weights(labels)
    assert weights.mean() == pytest.approx(1, abs=1e-12)
    of_class = np.bincount(labels, weights=weights)
    np.testing.assert_allclose(of_class[of_class > 0], 30 / len(np.unique(labels)))


@given(
    npst.arrays(np.int64, 30, elements=st.integers(0, 4)),
    npst.arrays(np.float64, 30, elements=st.sampled_from([0.0, 1.0])),
    st.permutations(range(30)),
)
def test_order_and_doubling_leave_balanced_accuracy_and_recalls_alone(labels, correct, order):
    balanced, recalls = classification.balanced_accuracy(correct, labels), classification.recalls(correct, labels, 5)
    for index in (np.array(order), np.repeat(order, 2)):
        assert classification.balanced_accuracy(correct[index], labels[index]) == pytest.approx(balanced, abs=1e-12)
        np.testing.assert_allclose(classification.recalls(correct[index], labels[index], 5), recalls, atol=1e-12)
    assert balanced == pytest.approx(np.nanmean(recalls), abs=1e-12)
