"""Recorded outputs as the embeddings of a benchmark."""

import numpy as np
import pytest

from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import from_arrays
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.embedding.recorded import recorded
from pytest_qreliab.quantizers.calibration import held_out

IDS = list("43210")
LABELS = np.array([0, 1, 1, 0, 1])
ROWS = np.arange(15, dtype=np.float32).reshape(5, 3) + 1


def images(name: str, count: int, labels=None):
    return from_arrays(name, np.zeros((count, 2, 2), np.uint8), labels)


@pytest.fixture
def data():
    """A benchmark of five images in the order of their ids, 0 to 4."""
    return Dataset(
        classes=("cat", "dog", "owl"),
        templates=("{}",),
        in_distribution=images("inside", 5, LABELS[::-1]),
        calibration=images("calibration", 5, LABELS[::-1]),
        ood={"letters": images("letters", 2)},
        near=frozenset({"letters"}),
        labelled={"shift.some": images("some", 2, np.array([0, 2]))},
    )


def record(kind: str, values=ROWS, **head) -> Recording:
    """Outputs of all sets; those of five samples lie in the order 4 to 0."""
    recording = Recording(["cat", "dog", "owl"], **head)
    recording.add("in_distribution", IDS, labels=LABELS, **{kind: values})
    recording.add("calibration", IDS, labels=LABELS, **{kind: values})
    recording.add("ood.near.letters", ["0", "1"], **{kind: values[:2]})
    recording.add("shift.some", ["0", "1"], labels=[0, 2], **{kind: values[:2]})
    return recording


def test_rows_come_in_the_order_of_the_benchmark(data):
    found = recorded(record("logits", logit_scale=10.0, logit_bias=-2.0), "mine", data)
    np.testing.assert_array_equal(found.in_distribution.values, ROWS[::-1])
    np.testing.assert_array_equal(found.labels, LABELS[::-1])
    np.testing.assert_array_equal(found.ood["letters"].values, ROWS[:2])
    assert (found.near, found.logit_scale, found.logit_bias) == ({"letters"}, 10.0, -2.0)
    assert found.in_distribution.floor is None


def test_what_was_not_asked_for_is_left_out(data):
    recording = record("logits")
    plain = recorded(recording, "mine", data)
    assert (plain.calibration, plain.labelled) == (None, {})
    found = recorded(recording, "mine", data, ("calibration", "shift"))
    assert list(found.labelled) == ["shift.some"]
    np.testing.assert_array_equal(found.labelled["shift.some"].labels, [0, 2])
    np.testing.assert_array_equal(found.calibration.images.values, ROWS[::-1])
    np.testing.assert_array_equal(found.calibration.held_out, held_out(data.calibration))
    assert found.calibration.held_out.sum() == 1  # a quarter of five


def test_features_have_the_unit_text_features_as_their_classifier(data):
    text = np.array([[3.0, 0, 4], [0, 2, 0], [1, 0, 0]])
    found = recorded(record("image_features", logit_scale=50.0, text_features=text), "mine", data)
    np.testing.assert_array_equal(found.in_distribution.features, ROWS[::-1])
    np.testing.assert_allclose(found.classifier, [[0.6, 0, 0.8], [0, 1, 0], [1, 0, 0]])
    assert (found.logit_scale, found.logit_bias) == (50.0, 0.0)


def test_probabilities_are_kept_as_recorded_with_the_floor_of_their_set(data):
    values = np.array([[0.5, 0.5, 0], [0.25, 0.75, 0], [1, 0, 0], [1e-9, 0.25, 0.75], [0.2, 0.3, 0.5]], np.float32)
    found = recorded(record("probabilities", values), "mine", data)
    np.testing.assert_array_equal(found.in_distribution.values, values[::-1])
    assert found.in_distribution.floor == pytest.approx(5e-10)
    assert found.ood["letters"].floor == 2.0**-25
