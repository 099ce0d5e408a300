"""What a measurement derives from its records, once."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from pytest_qreliab.metrics.names import MetricName


@pytest.mark.parametrize(
    ("part", "sets"),
    [("", ["letters", "photos"]), ("near", ["letters"]), ("far", ["photos"]), ("photos", ["photos"])],
)
def test_an_ood_metric_is_over_all_sets_or_the_near_or_far_ones_or_one(by_hand, part, sets):
    name = MetricName(family="ood", statistic="auroc", score="mcm", part=part)
    assert by_hand.measured().ood_sets(name) == sets


def test_a_score_that_no_set_has_is_over_none(by_hand):
    assert by_hand.measured().ood_sets(MetricName(family="ood", statistic="auroc", score="other", part="")) == []


def test_the_spectrum_of_features_is_that_of_their_principal_components(by_hand):
    measurement = by_hand.measured()
    spectrum, features = measurement.spectrum(""), measurement.features[""]
    expected = PCA().fit(features.astype(float)).explained_variance_ * (len(features) - 1) / len(features)
    np.testing.assert_allclose(spectrum.power, expected, rtol=1e-5)
    assert measurement.spectrum("") is spectrum
    assert measurement.spectrum("text") is not spectrum


def test_scores_of_a_set_are_sorted_once_for_all_statistics(by_hand):
    measurement = by_hand.measured()
    ranked = measurement.ranked("mcm", "photos")
    scores = np.concatenate([measurement.id_scores["mcm"], measurement.ood_scores["mcm"]["photos"]])
    truth = np.arange(len(scores)) >= len(measurement.id_scores["mcm"])
    assert ranked.auroc() == pytest.approx(roc_auc_score(truth, scores))
    assert measurement.ranked("mcm", "photos") is ranked
    assert measurement.ranked("mcm", "letters") is not ranked
