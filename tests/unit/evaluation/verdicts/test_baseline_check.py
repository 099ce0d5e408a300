"""Doubts about a baseline: raised for what cannot be meant, and never for few samples or for a model of use."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts.baseline_check import find_doubts, refuse
from pytest_qreliab.evaluation.verdicts.gates import judge
from pytest_qreliab.metrics.classification import predict

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GATED = ("accuracy", "ood.auroc", "shift.accuracy")


def predictions(n: int, *, classes: int = 10, accuracy: float = 0.9, scale: float = 5.0, order=None, seed: int = 0):
    """Predictions that are right so often, with the classes in another order if one is given."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    shown = np.where(rng.random(n) < accuracy, labels, rng.integers(0, classes, n))
    if order is not None:
        shown = np.asarray(order)[shown]
    return predict(torch.from_numpy(scale * np.eye(classes)[shown] + 0.1 * rng.random((n, classes))), labels)


def measured(n: int = 1000, **more) -> Measurement:
    return Measurement(classes=NAMES, samples=n, predictions=predictions(n, **more))


def doubts(measurement: Measurement, gated=GATED, alpha: float = 0.05) -> tuple[str, ...]:
    return find_doubts(measurement, gated, alpha)


@pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_model_of_use_raises_no_doubt(classes, accuracy):
    assert not doubts(measured(classes=classes, accuracy=accuracy, scale=np.log(classes)))


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_few_samples_raise_no_doubt_even_if_all_are_wrong(n, classes):
    labels = np.arange(n) % classes
    wrong = predict(torch.from_numpy(np.eye(classes)[(labels + 1) % classes]), labels)
    assert not doubts(Measurement(classes=(), samples=n, predictions=wrong))


def test_class_names_in_another_order_than_the_labels_are_named():
    (doubt,) = doubts(measured(order=np.roll(np.arange(10), 5), accuracy=0.99))
    assert "accuracy is 0.00" in doubt
    assert "would be 0.9" in doubt
    pairs = re.findall(r"samples labelled '(\w+)' are classified as '(\w+)'", doubt)
    assert len(pairs) == 3
    assert all((NAMES.index(predicted) - NAMES.index(label)) % 10 == 5 for label, predicted in pairs)
    assert "not in the same order" in doubt


def test_two_swapped_classes_of_ten_are_found_too():
    order = [1, 0, *range(2, 10)]
    (doubt,) = doubts(measured(order=order))
    assert "'zero' are classified as 'one'" in doubt
    assert "'one' are classified as 'zero'" in doubt
    assert doubt.count("samples labelled") == 2


def test_an_order_that_only_chance_prefers_is_not_found():
    """With few samples per class, the best order of the samples at hand is right for many of them."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 3)
    guessed = predict(torch.from_numpy(rng.normal(size=(900, 300))), labels)
    (doubt,) = doubts(Measurement(classes=(), samples=900, predictions=guessed))
    assert "another order" not in doubt
    assert "not above chance (1 of 300 classes)" in doubt


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_an_accuracy_at_chance_is_doubted(classes):
    (doubt,) = doubts(measured(2000, classes=classes, accuracy=0.0))
    assert f"not above chance (1 of {classes} classes)" in doubt
    assert "on 2000 samples" in doubt


def test_an_accuracy_a_little_above_chance_is_not_doubted_once_the_samples_show_it():
    assert not doubts(measured(20_000, accuracy=0.03, scale=0.5))


def test_confidence_that_has_nothing_to_do_with_the_accuracy_is_doubted():
    (timid,) = doubts(measured(scale=0.1))
    assert "the logit scale may be missing or too small" in timid
    (bold,) = doubts(measured(accuracy=0.2, scale=50.0))
    assert "confidence is 1 on average, beside an accuracy of 0.3" in bold
    assert "the logit scale may be too large" in bold


def with_ood(shift: float, **scores: float) -> Measurement:
    rng = np.random.default_rng(0)
    inside = rng.normal(size=1000)
    sets = {name: rng.normal(size=400) + (value or shift) for name, value in (scores or {"letters": 0.0}).items()}
    return dataclasses.replace(measured(), id_scores={"mcm": inside, "knn": inside}, ood_scores={"mcm": sets})


def test_an_auroc_below_one_half_is_doubted_by_set():
    (doubt,) = doubts(with_ood(0, letters=-0.3, photos=2.0))
    found = with_ood(0, letters=-0.3, photos=2.0)
    scores = [found.id_scores["mcm"], found.ood_scores["mcm"]["letters"]]
    auroc = roc_auc_score(np.repeat([0, 1], [1000, 400]), np.concatenate(scores))
    assert f"AUROC of letters by mcm is {auroc:.3g}, below the 0.5 of guessing" in doubt
    assert "swapped" in doubt


def test_an_auroc_that_may_be_one_half_or_is_not_gated_is_not_doubted():
    assert not doubts(with_ood(-0.02))
    assert not doubts(with_ood(2.0))
    assert not doubts(with_ood(-0.5), gated=("accuracy", "ood.auroc.knn"))
    assert not doubts(with_ood(0, letters=-0.3, photos=2.0), gated=("ood.fpr95.mcm.photos",))
    assert doubts(with_ood(0, letters=-0.3, photos=2.0), gated=("ood.fpr95.mcm.letters",))


def with_set(name: str, classes: int, n: int = 400) -> Measurement:
    of = predictions(n, classes=classes, accuracy=0.0)
    return dataclasses.replace(measured(), labelled={name: of}, candidates={name: classes})


def test_chance_on_a_shifted_set_counts_the_classes_that_it_is_told_apart_among():
    (doubt,) = doubts(with_set("shift.sketch", 4))
    assert "accuracy on shift.sketch" in doubt
    assert "1 of 4 classes" in doubt
    assert not doubts(with_set("shift.sketch", 4), gated=("accuracy",))
    above = dataclasses.replace(with_set("shift.sketch", 4), candidates={"shift.sketch": 100})
    assert not doubts(above)  # a quarter of a hundred classes is far above chance


@pytest.mark.parametrize("name", ["corruption.fog.5", "spurious.counter"])
def test_sets_that_are_meant_to_break_a_model_are_not_doubted(name):
    assert not doubts(with_set(name, 4), gated=("corruption.accuracy", "spurious.gap", "spurious.accuracy.counter"))


def test_without_predictions_there_is_nothing_to_doubt():
    assert not doubts(Measurement(classes=NAMES, samples=10))


def test_a_doubted_baseline_fails_every_gate_with_the_reason(make_gate, make_change, make_rule):
    gates = [make_gate(), make_gate("ece", "max_rise")]
    verdicts = judge({"accuracy": make_change(low=0.0, high=0.0)}, gates, make_rule(inconclusive="fail"))
    assert [verdict.passed for verdict in verdicts] == [True, False]
    refused = refuse(verdicts, ["one", "two"])
    assert not any(verdict.passed for verdict in refused)
    assert {verdict.outcome for verdict in refused} == {"fail"}
    assert refused[0].problem == "one; two"
    assert refused[1].problem == f"{verdicts[1].problem}; one; two"
