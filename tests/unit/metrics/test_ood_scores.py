"""OOD scores, against their definitions and other libraries."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance

from pytest_qreliab.metrics import ood_scores, registry
from pytest_qreliab.metrics.ood_scores import CalibrationFeatures, SampleScore, ScoredSamples


def scores(cosines, logits, negative=None, local=None):
    cosines, logits, negative = (None if x is None else torch.as_tensor(x) for x in (cosines, logits, negative))
    samples = ScoredSamples(logits=logits, cosines=cosines, negative_logits=negative, local=local)
    return ood_scores.score_samples(samples)


def test_scores_follow_their_definitions_and_rise_towards_ood():
    cosines = np.array([[0.9, 0.1, 0.0], [0.3, 0.3, 0.3]])
    logits = 20 * cosines - 1
    found = scores(cosines, logits)
    np.testing.assert_allclose(np.exp(-found["msp"]), softmax(logits, axis=1).max(axis=1))
    np.testing.assert_allclose(np.exp(-found["mcm"]), softmax(cosines, axis=1).max(axis=1))
    np.testing.assert_allclose(found["maxlogit"], -logits.max(axis=1))
    np.testing.assert_allclose(found["energy"], -logsumexp(logits, axis=1))
    assert all(score[1] > score[0] for score in found.values())


def test_msp_tells_samples_apart_whose_probability_rounds_to_one():
    logits = np.array([[50.0, 0.0], [60.0, 0.0], [1e4, -1e4]])
    msp = scores(logits / 1e4, logits)["msp"]
    assert softmax(logits, axis=1)[:2].max(axis=1).tolist() == [1, 1]
    assert msp[0] > msp[1] > msp[2] >= 0


def test_neglabel_is_the_share_of_the_softmax_mass_that_the_classes_keep():
    rng = np.random.default_rng(0)
    logits, negative = rng.normal(size=(6, 4)), rng.normal(size=(6, 9))

    def neglabel(logits, negative):
        return scores(logits, logits, negative)["neglabel"]

    share = softmax(np.hstack([logits, negative]), axis=1)[:, :4].sum(axis=1)
    np.testing.assert_allclose(np.exp(-neglabel(logits, negative)), share)
    np.testing.assert_allclose(neglabel(logits - 10, negative - 10), neglabel(logits, negative))
    # Shares of 1 - 1e-30 and of 1e-300 are told apart from 1 and from 0.
    near_one = neglabel(np.array([[0.0], [0.0]]), np.array([[-69.0], [-70.0]]))
    assert near_one[0] > near_one[1] > 0
    assert neglabel(np.array([[-700.0]]), np.array([[700.0]])) == 1400.0


def test_gl_mcm_adds_the_largest_local_probability():
    rng = np.random.default_rng(0)
    cosines, local = rng.uniform(-1, 1, (5, 3)), rng.uniform(-1, 1, (5, 7, 3))
    of_patches = softmax(local, axis=2).max(axis=(1, 2))
    expected = -(softmax(cosines, axis=1).max(axis=1) + of_patches)
    np.testing.assert_allclose(scores(cosines, cosines, local=np.log(of_patches))["gl-mcm"], expected)


def test_a_score_is_there_where_what_it_needs_is():
    cosines = np.eye(3)
    assert set(scores(cosines, cosines)) == {"msp", "maxlogit", "energy", "mcm"}
    everything = scores(cosines, cosines, cosines, np.zeros(3))
    assert {*everything, "mahalanobis", "knn"} == set(registry.OOD_SCORES)


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.fixture
def calibration():
    """Float32 features about three means, as of a model, and labels that leave out class 2."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3], 300)
    features = 3 * rng.normal(size=(4, 12))[labels] + rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12))
    return features.astype(np.float32), labels


def test_mahalanobis_agrees_with_sklearn(calibration):
    features, labels = calibration
    stored = unit(features.astype(np.float64))
    means = {label: stored[labels == label].mean(axis=0) for label in (0, 1, 3)}
    tied = EmpiricalCovariance(assume_centered=True).fit(stored - np.array([means[label] for label in labels]))
    others = np.random.default_rng(1).normal(size=(50, 12)).astype(np.float32)
    expected = np.min([tied.mahalanobis(unit(others.astype(np.float64)) - mean) for mean in means.values()], axis=0)
    fit = ood_scores.fit_mahalanobis(features, labels)
    np.testing.assert_allclose(ood_scores.mahalanobis(others, fit), expected, rtol=1e-5)
    np.testing.assert_allclose(
        ood_scores.mahalanobis(100 * others, fit), expected, rtol=1e-5
    )  # lengths make no difference
    assert ood_scores.mahalanobis(others, fit).min() > np.median(ood_scores.mahalanobis(features, fit))


def test_mahalanobis_of_a_singular_covariance_is_that_of_the_pseudo_inverse(calibration):
    features, labels = (part[:8] for part in calibration)  # eight samples in twelve dimensions
    stored = unit(features.astype(np.float64))
    classes = np.unique(labels)
    means = np.array([stored[labels == label].mean(axis=0) for label in classes])
    within = stored - means[np.searchsorted(classes, labels)]
    inverse = np.linalg.pinv(within.T @ within / 8, rcond=1e-8, hermitian=True)
    fit = ood_scores.fit_mahalanobis(features, labels)
    assert fit.whiten.shape == (12, 8 - len(classes))
    others = np.random.default_rng(1).normal(size=(20, 12))
    gaps = unit(others)[:, None] - means
    expected = np.einsum("ncd,de,nce->nc", gaps, inverse, gaps).min(axis=1)
    np.testing.assert_allclose(ood_scores.mahalanobis(others, fit), expected, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 50, 300, None])
def test_knn_is_the_brute_force_distance(calibration, k):
    bank, _ = calibration
    others = np.random.default_rng(1).normal(size=(40, 12)).astype(np.float32)
    distances = cdist(unit(others.astype(np.float64)), unit(bank.astype(np.float64)))
    expected = np.sort(distances, axis=1)[:, (50 if k is None else k) - 1]
    np.testing.assert_allclose(ood_scores.knn(others, bank, k), expected, rtol=1e-6)
    few = np.sort(distances[:, :20], axis=1)[:, -1]
    np.testing.assert_allclose(ood_scores.knn(others, bank[:20]), few, rtol=1e-6)


def test_scores_on_features_come_in_chunks_alike(calibration, monkeypatch):
    features, labels = calibration
    fit = ood_scores.fit_mahalanobis(features, labels)
    whole = ood_scores.mahalanobis(features, fit), ood_scores.knn(features, features, 5)
    monkeypatch.setattr(ood_scores, "CHUNK_ELEMENTS", 1000)
    np.testing.assert_allclose(ood_scores.mahalanobis(features, fit), whole[0])
    np.testing.assert_allclose(ood_scores.knn(features, features, 5), whole[1])


def test_knn_needs_little_memory():
    rng = np.random.default_rng(0)
    features, bank = (rng.normal(size=(n, 512)).astype(np.float32) for n in (1200, 10_000))
    tracemalloc.start()
    ood_scores.knn(features, bank)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_features_that_are_no_directions(calibration, bad):
    features, labels = calibration
    fit, broken = ood_scores.fit_mahalanobis(features, labels), features.copy()
    broken[7] = bad
    for found in (ood_scores.mahalanobis(broken, fit), ood_scores.knn(broken, features)):
        assert np.flatnonzero(np.isnan(found)).tolist() == [7]
    for use in (lambda: ood_scores.fit_mahalanobis(broken, labels), lambda: ood_scores.knn(features, broken)):
        with pytest.raises(ValueError, match="NaN, infinity or a zero vector in the calibration features"):
            use()


def test_calibration_features_that_cannot_be_used(calibration):
    features, labels = calibration
    with pytest.raises(ValueError, match="are the same"):
        ood_scores.fit_mahalanobis(features[labels], labels)
    for k in (0, 301):
        with pytest.raises(ValueError, match="of 300 neighbours"):
            ood_scores.knn(features, features, k)


def test_a_new_score_is_one_class_and_one_line(monkeypatch):
    """Names, needs and values of a score come from its class alone."""

    class Entropy(SampleScore):
        def score(self, samples):
            log_probs = samples.logits.log_softmax(dim=1)
            return -(log_probs.exp() * log_probs).sum(dim=1)

    monkeypatch.setitem(ood_scores.SCORES, "entropy", Entropy("entropy"))
    logits = np.array([[9.0, 0.0], [0.0, 0.0]])
    found = scores(None, logits)["entropy"]
    assert found[0] < found[1] == pytest.approx(np.log(2))
    assert registry.lookup("ood.fpr95.entropy.near").better == "lower"


@pytest.mark.parametrize("lost", ["cosines", "negative_logits", "local"])
def test_what_is_not_there_is_named(lost):
    samples = ScoredSamples(logits=torch.eye(3), cosines=torch.eye(3), negative_logits=torch.eye(3), local=np.zeros(3))
    bare = dataclasses.replace(samples, **{lost: None})
    score = ood_scores.SCORES[{"cosines": "mcm", "negative_logits": "neglabel", "local": "gl-mcm"}[lost]]
    assert score.name in ood_scores.score_samples(samples)
    assert score.name not in ood_scores.score_samples(bare)
    with pytest.raises(ValueError, match="to score with"):
        score.score(bare)


def test_calibration_features_without_labels_allow_the_scores_that_need_none():
    features = np.eye(3)
    assert list(ood_scores.fitted_scores(CalibrationFeatures(features))) == ["knn"]
    labelled = CalibrationFeatures(features, np.arange(3))
    assert list(ood_scores.fitted_scores(labelled)) == ["mahalanobis", "knn"]
