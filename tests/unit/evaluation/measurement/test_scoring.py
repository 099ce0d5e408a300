"""The OOD scores of image sets: which there are, in which order, and why some are missing."""

import dataclasses
import math

import numpy as np
import pytest

from pytest_qreliab.embedding.records import FeatureOutputs
from pytest_qreliab.evaluation.measurement import scoring
from pytest_qreliab.evaluation.measurement.logits import FeatureLogits
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.metrics import registry


def test_calibration_images_without_labels_allow_knn_alone(by_hand):
    found = by_hand.embeddings()
    bare = dataclasses.replace(found, calibration=dataclasses.replace(found.calibration, labels=None))
    values = measure(bare).values
    assert "ood.auroc.knn" in values
    assert not [name for name in values if "mahalanobis" in name or name.startswith("rescaled.")]


def test_scores_come_in_the_order_of_the_table(by_hand):
    found = by_hand.measured()
    assert tuple(found.id_scores) == tuple(found.ood_scores) == registry.OOD_SCORES
    names = [name for name in found.values if name.startswith("ood.auroc.") and name.endswith(".letters")]
    assert names == [f"ood.auroc.{score}.letters" for score in registry.OOD_SCORES]


def test_a_set_without_a_score_does_not_change_their_order(by_hand):
    found = by_hand.place(by_hand.embeddings(), "letters local", math.nan)
    assert tuple(measure(found).ood_scores) == registry.OOD_SCORES


def test_a_problem_of_a_set_is_one_of_every_mean_over_it():
    found = scoring.SetScores({}, {("mcm", "letters"): "broken", ("mcm", "photos"): "too"})
    problems = found.problems_by_metric(frozenset({"letters"}))
    assert problems["ood.auroc.mcm.near"] == problems["ood.auroc.mcm.letters"] == problems["ood.auroc.mcm"] == "broken"
    assert problems["ood.fpr95.mcm.far"] == problems["ood.fpr95.mcm.photos"] == "too"
    assert {registry.lookup(name).aspect for name in problems} == {"ood"}
    assert len(problems) == 5 * len(registry.OOD_STATISTICS)


def test_the_fitted_score_of_neighbours_is_sklearns_distance_to_them(by_hand):
    from sklearn.neighbors import NearestNeighbors

    from pytest_qreliab.metrics.ood_scores import CalibrationFeatures

    found = by_hand.embeddings()
    calibration = found.calibration
    fitted = scoring.fit_scorers(found, FeatureLogits(found))
    assert fitted.problems == {}
    images = found.ood["photos"]
    scores = scoring.score_features(images, FeatureLogits(found), fitted)
    alone = scoring.FittedScorers.fit(CalibrationFeatures(calibration.images.features, None))
    assert "knn" in alone.scorers
    assert "mahalanobis" not in alone.scorers
    rows = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in (calibration.images.features, images.features)]
    distances, _ = NearestNeighbors(n_neighbors=len(rows[0])).fit(rows[0]).kneighbors(rows[1])
    # Whatever its sign, the score is the distance to one of the neighbours, to the same one for all samples.
    errors = np.abs(np.abs(scores["knn"])[:, None] - distances).max(axis=0)
    assert errors.min() < 1e-3


def test_calibration_features_that_are_no_directions_fit_nothing(by_hand):
    found = by_hand.place(by_hand.embeddings(), "calibration seen", math.nan)
    fitted = scoring.fit_scorers(found, FeatureLogits(found))
    assert fitted.scorers == {}
    assert set(fitted.problems.values()) == {"NaN, infinity or a zero vector in 1 of 100 calibration image features"}
    assert set(fitted.problems) >= {"knn", "mahalanobis"}


def test_a_score_that_cannot_be_fitted_says_why_and_leaves_the_others(by_hand):
    class Refusing:
        def fit(self, calibration):
            raise ValueError("too few")

    fitted = scoring.FittedScorers()
    fitted.add("odd", Refusing(), None)
    assert (fitted.scorers, fitted.problems) == ({}, {"odd": "too few"})


def test_scores_that_are_read_off_samples_do_not_depend_on_the_chunks(by_hand, monkeypatch):
    from pytest_qreliab.evaluation.measurement import logits

    found = by_hand.embeddings()
    source, images = FeatureLogits(found), found.ood["letters"]
    whole = scoring.score_images(images, source)
    monkeypatch.setattr(logits, "CHUNK_ROWS", 7)
    parts = scoring.score_images(images, source)
    assert parts.keys() == whole.keys()
    for name, scores in whole.items():
        np.testing.assert_allclose(parts[name], scores, atol=1e-9)
    one = FeatureOutputs(features=images.features[:1], local=images.local[:1])
    for name, (score,) in scoring.score_images(one, source).items():
        assert score == pytest.approx(whole[name][0], abs=1e-9)
