"""From embeddings to the values of all metrics, and what is not finite."""

import dataclasses
import math
from fnmatch import fnmatch

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, recall_score, roc_auc_score

from pytest_qreliab.embedding.records import FeatureEmbeddings, FeatureOutputs
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import ASPECTS


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_measurement_agrees_with_sklearn(by_hand):
    found = by_hand.embeddings()
    logits = 12 * unit(found.in_distribution.features.astype(float)) @ found.classifier.T.astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values = by_hand.measured().values
    predicted = logits.argmax(1)
    assert values["accuracy"] == accuracy_score(found.labels, predicted)
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(found.labels, predicted))
    recalls = [values[f"recall.{name}"] for name in by_hand.CLASSES]
    assert recalls == pytest.approx(recall_score(found.labels, predicted, average=None))
    assert values["nll"] == pytest.approx(log_loss(found.labels, probabilities))
    assert values["confidence_gap"] == pytest.approx(probabilities.max(1).mean() - values["accuracy"])
    outside = unit(found.ood["letters"].features.astype(float))
    outside_logits = 12 * outside @ found.classifier.T.astype(float)
    outside_probabilities = np.exp(outside_logits) / np.exp(outside_logits).sum(axis=1, keepdims=True)
    truth = np.concatenate([np.zeros(by_hand.N), np.ones(80)])
    confidence = np.concatenate([probabilities.max(1), outside_probabilities.max(1)])
    assert values["ood.auroc.msp.letters"] == pytest.approx(roc_auc_score(truth, -confidence))


def test_an_ood_metric_is_the_mean_over_its_sets_and_near_and_far_are_over_theirs(by_hand):
    found = dataclasses.replace(by_hand.embeddings(), near=frozenset({"letters", "signs"}))
    found = dataclasses.replace(found, ood={**found.ood, "signs": by_hand.embeddings(seed=5).ood["photos"]})
    values = measure(found).values
    for metric in ("ood.auroc.mcm", "ood.fpr95.knn", "ood.aupr_in.gl-mcm"):
        letters, photos, signs = (values[f"{metric}.{name}"] for name in ("letters", "photos", "signs"))
        assert values[metric] == pytest.approx((letters + photos + signs) / 3)
        assert values[f"{metric}.near"] == pytest.approx((letters + signs) / 2)
        assert values[f"{metric}.far"] == photos


def test_without_near_sets_there_is_no_mean_over_them(by_hand):
    values = measure(dataclasses.replace(by_hand.embeddings(), near=frozenset())).values
    assert "ood.auroc.mcm.near" not in values
    assert values["ood.auroc.mcm.far"] == values["ood.auroc.mcm"]


def test_every_metric_has_a_value_and_every_name_a_metric(by_hand):
    values = by_hand.measured().values
    assert set(values) == set(by_hand.NAMES) - by_hand.OF_PAIR
    assert all(math.isfinite(value) for value in values.values())
    assert not by_hand.measured().problems
    measurable = {name for name in registry.names() if not registry.lookup(name).needs & by_hand.UNSEEN}
    assert {registry.canonical(name) for name in measurable} <= set(by_hand.NAMES)
    assert all(registry.lookup(name).aspect in ASPECTS for name in values)


@pytest.mark.parametrize(("right", "problem"), [(True, "wrongly"), (False, "rightly")])
def test_failures_cannot_be_predicted_where_all_or_none_are_right(by_hand, right, problem):
    found = by_hand.embeddings()
    predicted = by_hand.measured().predictions.predicted
    labels = predicted if right else (predicted + 1) % len(by_hand.CLASSES)
    measured = measure(dataclasses.replace(found, labels=labels), by_hand.CLASSES)
    failure = {name for name in measured.values if "failure." in name}
    assert len(failure) == 8  # under both logit scales
    assert measured.problems == dict.fromkeys(failure, f"no sample is classified {problem}")
    assert all(math.isnan(measured.values[name]) for name in failure)
    assert measured.values["augrc"] == (0 if right else pytest.approx(0.5))


def test_the_classes_that_a_prediction_on_a_further_set_may_name_are_counted(by_hand):
    found = by_hand.embeddings()
    among = dataclasses.replace(
        found.labelled["shift.print"],
        labels=np.repeat([1, 3], 30).astype(np.int64),
        candidates=np.array([1, 3, 4]),
    )
    counts = measure(dataclasses.replace(found, labelled={**found.labelled, "shift.print": among})).candidates
    assert counts == {**dict.fromkeys(found.labelled, len(by_hand.CLASSES)), "shift.print": 3}


WITHOUT = {
    "negatives": "*.neglabel*",
    "calibration": "*.knn*|*.mahalanobis*|rescaled.*",
}


@pytest.mark.parametrize("part", WITHOUT)
def test_what_was_not_asked_for_is_not_measured(by_hand, part):
    left = measure(dataclasses.replace(by_hand.embeddings(), **{part: None}), by_hand.CLASSES)
    gone = {name for name in by_hand.NAMES if any(fnmatch(name, pattern) for pattern in WITHOUT[part].split("|"))}
    assert set(left.values) == set(by_hand.NAMES) - gone - by_hand.OF_PAIR
    assert not left.problems


def test_a_benchmark_without_ood_sets_has_no_ood_values(by_hand):
    values = measure(dataclasses.replace(by_hand.embeddings(), ood={})).values
    assert not [name for name in values if name.startswith("ood")]


def reordered(found: FeatureEmbeddings, index) -> FeatureEmbeddings:
    inside = found.in_distribution
    images = FeatureOutputs(**{part: getattr(inside, part)[index] for part in ("features", "high_band", "local")})
    return dataclasses.replace(found, in_distribution=images, labels=found.labels[index])


def test_the_order_of_samples_does_not_matter(by_hand):
    order = np.random.default_rng(0).permutation(by_hand.N)
    values = measure(reordered(by_hand.embeddings(), order), by_hand.CLASSES).values
    assert values == pytest.approx(by_hand.measured().values, abs=1e-6)


def test_every_sample_twice_changes_nothing_but_the_debiased_ece(by_hand):
    values = measure(reordered(by_hand.embeddings(), np.repeat(np.arange(by_hand.N), 2)), by_hand.CLASSES).values
    once = dict(by_hand.measured().values)
    for name in ("ece.debiased", "rescaled.ece.debiased"):
        assert values.pop(name) > once.pop(name)
    for name in [name for name in values if name.startswith("ood.aupr")]:  # which go with the share of OOD samples
        del values[name], once[name]
    assert values == pytest.approx(once, abs=1e-6)


def test_rescaling_does_not_depend_on_the_scale(by_hand):
    found, changed = by_hand.measured(), measure(dataclasses.replace(by_hand.embeddings(), logit_scale=100.0))
    for name in registry.RESCALED_METRICS:
        assert changed.values[name] == pytest.approx(found.values[name], abs=1e-6)
    assert found.values["rescaled.nll"] < found.values["nll"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_problem_of_exactly_the_metrics_it_touches(by_hand, broken, value):
    found = measure(by_hand.place(by_hand.embeddings(), broken, value), by_hand.CLASSES)
    assert set(found.problems) == by_hand.touched(broken)
    for name in found.problems:
        assert math.isnan(found.values.get(name, math.nan))
    assert all(
        math.isfinite(found.values[name]) for name in set(by_hand.NAMES) - by_hand.touched(broken) - by_hand.OF_PAIR
    )
