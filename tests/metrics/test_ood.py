import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score, roc_curve

from pytest_qreliab.metrics import ood

# Few distinct values, so that ties are the rule.
tied_scores = npst.arrays(np.float64, st.integers(2, 25), elements=st.integers(0, 6).map(float))


@given(tied_scores, tied_scores)
def test_auroc_with_ties_agrees_with_sklearn_and_brute_force(of_id, of_ood):
    ours = ood.auroc(of_id, of_ood)
    truth = np.concatenate([np.zeros(len(of_id)), np.ones(len(of_ood))])
    assert ours == pytest.approx(roc_auc_score(truth, np.concatenate([of_id, of_ood])), abs=1e-12)
    pairs = (of_ood[:, None] > of_id).mean() + (of_ood[:, None] == of_id).mean() / 2
    assert ours == pytest.approx(pairs, abs=1e-12)


@given(tied_scores, tied_scores)
def test_placements_are_the_brute_force_shares(of_id, of_ood):
    wins = (of_ood[:, None] > of_id) + (of_ood[:, None] == of_id) / 2
    by_ood, by_id = ood.placements(of_id, of_ood)
    np.testing.assert_allclose(by_ood, wins.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(by_id, wins.mean(axis=0), atol=1e-12)


@given(tied_scores, tied_scores)
def test_fpr95_is_the_first_threshold_of_sklearns_curve(of_id, of_ood):
    is_id = np.concatenate([np.ones(len(of_id)), np.zeros(len(of_ood))])
    accepted = -np.concatenate([of_id, of_ood])  # a low score is accepted as ID
    fpr, tpr, _ = roc_curve(is_id, accepted, drop_intermediate=False)
    assert ood.fpr_at_95(of_id, of_ood) == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-12)], abs=1e-12)


@given(tied_scores, tied_scores, st.integers(0, 2**32 - 1))
def test_fpr95_by_counts_equals_repeating_the_samples(of_id, of_ood, seed):
    rng = np.random.default_rng(seed)
    id_counts, ood_counts = (rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=2) for x in (of_id, of_ood))
    by_counts = ood.fpr_at_95(of_id, of_ood, id_counts, ood_counts)
    for i, value in enumerate(by_counts):
        expected = ood.fpr_at_95(np.repeat(of_id, id_counts[i]), np.repeat(of_ood, ood_counts[i]))
        assert value == pytest.approx(expected, abs=1e-12)


def test_scores_follow_their_definitions_and_rise_towards_ood():
    cosines = np.array([[0.9, 0.1, 0.0], [0.3, 0.3, 0.3]])
    logits = 20 * cosines - 1
    scores = ood.scores(cosines, 20.0, -1.0)
    np.testing.assert_allclose(np.exp(-scores["msp"]), softmax(logits, axis=1).max(axis=1))
    np.testing.assert_allclose(np.exp(-scores["mcm"]), softmax(cosines, axis=1).max(axis=1))
    np.testing.assert_allclose(scores["maxlogit"], -logits.max(axis=1))
    np.testing.assert_allclose(scores["energy"], -logsumexp(logits, axis=1))
    assert all(score[1] > score[0] for score in scores.values())


def test_separable_and_equal_scores():
    assert ood.auroc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0
    assert ood.fpr_at_95(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 0.0
    assert ood.auroc(np.ones(4), np.ones(3)) == 0.5
    assert ood.fpr_at_95(np.ones(4), np.ones(3)) == 1.0
