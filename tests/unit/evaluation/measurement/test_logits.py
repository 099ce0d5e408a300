"""Logits of features and recorded ones, some rows at a time, and what is not finite in them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from pytest_qreliab.data.output_checks import probability_floor
from pytest_qreliab.embedding.records import FeatureOutputs, LogitEmbeddings, LogitOutputs
from pytest_qreliab.evaluation.measurement import logits
from pytest_qreliab.evaluation.measurement.measure import measure


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_samples_come_in_chunks_alike(by_hand, monkeypatch):
    monkeypatch.setattr(logits, "CHUNK_ROWS", 7)
    assert measure(by_hand.embeddings(), by_hand.CLASSES).values == pytest.approx(by_hand.measured().values, abs=1e-9)


def test_lengths_of_features_do_not_matter(by_hand):
    found = by_hand.embeddings()
    for factor in (1e-30, 1e30):
        shorter = dataclasses.replace(
            found.in_distribution, features=np.float32(factor) * found.in_distribution.features
        )
        values = measure(dataclasses.replace(found, in_distribution=shorter), by_hand.CLASSES).values
        assert values == pytest.approx(
            by_hand.measured().values, abs=1e-4
        )  # in float32 two neighbours may change places


@pytest.mark.parametrize("where", ["negatives", "ID local", "letters local"])
def test_minus_infinity_does_not_hide_in_an_exponential(by_hand, where):
    """Where every feature is positive, its cosine is minus infinity and the mass of its class 0, which is finite."""
    found = by_hand.embeddings()

    def absolute(images: FeatureOutputs) -> FeatureOutputs:
        return FeatureOutputs(**{part: np.abs(getattr(images, part)) for part in ("features", "high_band", "local")})

    positive = absolute(found.in_distribution)
    ood = {name: absolute(images) for name, images in found.ood.items()}
    poisoned = by_hand.place(dataclasses.replace(found, in_distribution=positive, ood=ood), where, -math.inf)
    assert set(measure(poisoned, by_hand.CLASSES).problems) == by_hand.touched(where)


def test_a_zero_feature_has_no_direction(by_hand):
    found = by_hand.embeddings()
    features = found.in_distribution.features.copy()
    features[3] = 0
    problems = measure(dataclasses.replace(found, in_distribution=FeatureOutputs(features=features))).problems
    assert problems["accuracy"] == "NaN, infinity or a zero vector in 1 of 200 in-distribution image features"


@pytest.mark.parametrize(
    ("scale", "probabilities", "scores"),
    [
        pytest.param(12.0, False, {"msp", "maxlogit", "energy", "mcm"}, id="logits"),
        pytest.param(None, False, {"msp", "maxlogit", "energy"}, id="logits without a scale"),
        pytest.param(12.0, True, {"msp", "mcm"}, id="probabilities"),
    ],
)
def test_recorded_logits_allow_what_they_hold(by_hand, scale, probabilities, scores):
    found = by_hand.embeddings()

    def outputs(images: FeatureOutputs) -> LogitOutputs:
        values = 12 * unit(images.features.astype(float)) @ found.classifier.T
        if not probabilities:
            return LogitOutputs(values.astype(np.float32))
        return LogitOutputs(softmax(values, axis=1).astype(np.float32), floor=1e-9)

    recorded = LogitEmbeddings(
        in_distribution=outputs(found.in_distribution),
        labels=found.labels,
        ood={name: outputs(images) for name, images in found.ood.items()},
        near=found.near,
        logit_scale=scale,
        logit_bias=0.0,
    )
    measured = measure(recorded, by_hand.CLASSES)
    assert set(measured.ood_scores) == scores
    assert not measured.problems
    for name, value in measured.values.items():
        assert value == pytest.approx(by_hand.measured().values[name], abs=1e-3), name


def everything(source, images):
    """All chunks of an image set, joined."""
    return [samples for _, samples in source.chunks(images, everything=True)]


def test_logits_of_features_are_scaled_cosines_with_a_bias(by_hand, monkeypatch):
    monkeypatch.setattr(logits, "CHUNK_ROWS", 64)
    found = dataclasses.replace(by_hand.embeddings(), logit_bias=-3.0)
    samples = everything(logits.FeatureLogits(found), found.in_distribution)
    assert [len(part.logits) for part in samples] == [64, 64, 64, 8]
    directions = unit(found.in_distribution.features.astype(float))
    for part, against in (("logits", found.classifier), ("negative_logits", found.negatives)):
        joined = torch.cat([getattr(chunk, part) for chunk in samples]).numpy()
        np.testing.assert_allclose(joined, 12 * directions @ against.T.astype(float) - 3, atol=1e-12)


def test_cosines_of_recorded_logits_undo_the_scale_and_the_bias():
    cosines = np.array([[0.5, -0.25], [1.0, 0.0]], np.float32)
    outputs = LogitOutputs(8 * cosines - 3)
    head = {"in_distribution": outputs, "labels": np.array([0, 1]), "ood": {}, "logit_bias": -3.0}
    (samples,) = everything(logits.RecordedLogits(LogitEmbeddings(**head, logit_scale=8.0)), outputs)
    np.testing.assert_array_equal(samples.cosines.numpy(), cosines)
    (unscaled,) = everything(logits.RecordedLogits(LogitEmbeddings(**head, logit_scale=None)), outputs)
    assert unscaled.cosines is None
    np.testing.assert_array_equal(
        log_softmax(unscaled.logits.numpy(), axis=1), log_softmax(outputs.values.astype(float), axis=1)
    )


def test_features_that_are_no_directions_are_counted_once_each():
    features = np.ones((6, 3))
    features[1] = 0
    features[2, 0], features[3] = math.nan, math.inf
    assert logits.bad_features(features, "things") == "NaN, infinity or a zero vector in 3 of 6 things"
    assert logits.bad_features(features[4:], "things") == ""


def test_some_of_the_recorded_outputs_are_taken_with_their_floor():
    values = np.eye(5, 3, dtype=np.float32)
    outputs = LogitOutputs(values, floor=1e-9)
    head = {"labels": np.zeros(5, int), "ood": {}, "logit_scale": None, "logit_bias": 0.0}
    source = logits.RecordedLogits(LogitEmbeddings(in_distribution=outputs, **head))
    some = source.take(outputs, np.array([True, False, True, True, False]))
    np.testing.assert_array_equal(some.values, values[[0, 2, 3]])
    assert some.floor == 1e-9
    assert (len(some), source.classes(some), source.features(some), source.problem(some, "x")) == (3, 3, None, "")


def recorded_probabilities(values, labels) -> LogitEmbeddings:
    values = np.array(values, np.float32)
    outputs = LogitOutputs(values, probability_floor(values))
    return LogitEmbeddings(
        in_distribution=outputs, labels=np.array(labels), ood={"letters": outputs}, logit_scale=100.0, logit_bias=0.0
    )


def test_perfect_one_hot_probabilities_are_perfect():
    """In the past zeros took part of the row: the ece was .60."""
    for classes in (2, 4, 1000):
        labels = np.arange(100) % classes
        found = measure(recorded_probabilities(np.eye(classes)[labels], labels)).values
        assert (found["accuracy"], found["ece"], found["brier"], found["nll"]) == (1, 0, 0, 0)


def test_a_wrong_one_hot_has_the_largest_loss_but_a_finite_one():
    found = measure(recorded_probabilities(np.eye(2)[[0, 1]], [1, 0])).values
    assert (found["accuracy"], found["ece"], found["brier"]) == (0, 1, 2)
    assert found["nll"] == pytest.approx(25 * math.log(2))


def test_a_softmax_that_underflows_in_float32_has_finite_values():
    values = np.array([[1.0, 1e-45, 0.0], [1e-45, 1.0, 3e-45], [0.0, 1e-20, 1.0]], np.float32)
    found = measure(recorded_probabilities(values, [0, 1, 1])).values
    assert all(map(math.isfinite, found.values()))
    assert found["nll"] == pytest.approx(-math.log(1e-20) / 3, rel=1e-6)
    wrong = measure(recorded_probabilities(values[:1], [2])).values["nll"]
    assert wrong == pytest.approx(150 * math.log(2))  # half the smallest float32


def test_rows_that_do_not_sum_to_one_are_measured_as_they_are():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=200).astype(np.float16).astype(np.float32) * np.float32(1.004)
    labels = rng.integers(4, size=200)
    found = measure(recorded_probabilities(p, labels))
    exact = p.astype(float)
    np.testing.assert_array_equal(found.predictions.confidence, exact.max(axis=1).clip(max=1))
    np.testing.assert_allclose(found.predictions.nll, -np.log(exact[np.arange(200), labels].clip(max=1)), atol=1e-12)
    brier = ((exact.clip(max=1) - np.eye(4)[labels]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.predictions.brier, brier, atol=1e-12)
