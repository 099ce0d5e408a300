"""What cannot be outputs is refused with its remedy, and what is doubtful is said."""

import math

import numpy as np
import pytest

from pytest_qreliab.data import output_checks
from pytest_qreliab.data.recording import Recording

CLASSES = ["cat", "dog", "owl"]
IDS = ["a", "b"]
GOOD = {
    "logits": np.array([[9.0, 1.0, 0.0], [-1.0, 4.0, 2.0]]),
    "probabilities": np.array([[0.7, 0.2, 0.1], [0.1, 0.4, 0.5]]),
    "image_features": np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]]),
}


def recording(**head) -> Recording:
    return Recording(CLASSES, text_features=np.eye(3), **{"logit_scale": 100.0, **head})


def doubts(values, **labelled) -> list[str]:
    made = recording()
    made.add("in_distribution", IDS, labels=labelled.pop("labels", [0, 1]), **values)
    return made.warnings


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_single_cell_that_is_not_finite_is_refused_with_set_and_sample(kind, bad, refusal):
    values = GOOD[kind].copy()
    values[1, 2] = bad
    text = refusal(recording().add, "shift.fog", IDS, labels=[0, 1], **{kind: values})
    assert text.startswith(f"shift.fog: {kind}: NaN or infinity in 1 of 2 rows, the first is of id 'b' (")
    assert ("name the classes that are not masked with among=" in text) == (kind == "logits" and bad == -math.inf)


def test_text_features_that_are_not_finite_name_the_class(refusal):
    text = refusal(Recording, CLASSES, text_features=[[1.0, 0.0], [0.0, math.inf], [1.0, 1.0]])
    assert text.startswith("text_features: NaN or infinity in 1 of 3 rows, the first is of class 'dog' (inf)")


def test_a_file_with_a_cell_of_minus_infinity_is_named(tmp_path, refusal, npz_of):
    values = GOOD["probabilities"].copy()
    values[0, 1] = -math.inf
    arrays = {"in_distribution/logits": None, "in_distribution/probabilities": values}
    path = npz_of(tmp_path / "r.npz", **arrays)
    text = refusal(Recording.load, path)
    assert text.startswith(f"{path}: in_distribution: probabilities: NaN or infinity in 1 of 2 rows, the first is of ")


def test_classes_without_a_direction_of_their_own(refusal):
    text = refusal(Recording, CLASSES, text_features=[[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert text == "text_features: those of 2 classes are all 0, the first is 'dog'"
    made = Recording(CLASSES, text_features=[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert made.warnings == ["text_features: those of 'cat' and 'owl' are equal"]
    assert recording().warnings == []


@pytest.mark.parametrize("kind", GOOD)
def test_good_outputs_raise_no_doubt(kind):
    assert doubts({kind: GOOD[kind]}) == []


def test_a_softmax_is_no_logits(refusal):
    text = refusal(recording().add, "in_distribution", IDS, labels=[0, 1], logits=GOOD["probabilities"])
    assert text.startswith("in_distribution: logits: all rows lie in 0..1 with the sum 1: this is a softmax, give it")
    # One row that is none, and they are logits.
    assert doubts({"logits": [[0.7, 0.2, 0.1], [0.9, 0.9, 3.0]]}) == []


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (np.log(GOOD["probabilities"]), "the logits are log-probabilities"),
        ([[0.31, 0.22, -0.1], [0.2, 0.27, 0.15]], "the logits lie in -0.1..0.31: if these are cosines, multiply them"),
        ([[0.3, 0.2, 1.1], [0.2, 0.27, 0.15]], None),
        ([[-3.0, -2.0, -1.0], [-2.0, -2.0, -2.0]], None),
    ],
    ids=["log-softmax", "cosines", "logits", "negative logits"],
)
def test_logits_that_may_be_something_else_are_said(logits, said):
    found = doubts({"logits": np.array(logits)})
    assert len(found) == (said is not None)
    assert all(text.startswith(f"in_distribution: {said}") for text in found)


@pytest.mark.parametrize(
    ("rows", "mend"),
    [
        (GOOD["logits"], "these look like logits, give them as logits="),
        (np.log(GOOD["probabilities"]), "these look like log-probabilities, give their exponentials"),
        (100 * GOOD["probabilities"], "; divide each row by its sum"),
        (
            [[0.2, 0.3, 0.5], [0.2, 0.3, 0.4]],
            "give the softmax over the classes, each row divided by its sum if it was rounded",
        ),
    ],
    ids=["logits", "log-probabilities", "percentages", "another sum"],
)
def test_probabilities_that_are_none_name_what_they_may_be(rows, mend, refusal):
    text = refusal(recording().add, "in_distribution", IDS, labels=[0, 1], probabilities=np.array(rows))
    assert "rows do not lie in 0..1 with the sum 1, the first is of id" in text
    assert text.endswith(mend)


def test_sums_that_are_off_are_said_with_the_furthest():
    values = GOOD["probabilities"] * np.array([[1.0005], [0.993]])
    (text,) = doubts({"probabilities": values})
    assert text.startswith("in_distribution: the probabilities of 1 of 2 rows do not sum to 1, the furthest to 0.9930 ")
    assert "confidence, ece, brier and nll take them as they are" in text


def test_zeros_at_labels_are_said_and_others_are_not():
    values = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
    assert doubts({"probabilities": values}) == []
    (text,) = doubts({"probabilities": values}, labels=[2, 1])
    start = "in_distribution: the label's probability is 0 in 1 of 2 rows: nll takes it as 2.98e-08, which depends on "
    assert text == start + "the precision; record both models in the same, or their logits"


def test_the_same_doubt_about_many_sets_is_one_line():
    made = recording()
    for name in ("in_distribution", "shift.a", "shift.b"):
        made.add(name, IDS, labels=[0, 1], logits=np.full((2, 3), 0.25))
    (text,) = made.warnings
    assert text.startswith("in_distribution: the logits lie in 0.25..0.25")
    assert text.endswith(" (and 2 more sets)")


@pytest.mark.parametrize(
    ("smallest", "floor"),
    [(1e-45, 2.0**-150), (6e-8, 2.0**-25), (1e-9, 5e-10), (0.1, 2.0**-25)],
    ids=["float32", "float16", "finer than float16", "one decimal"],
)
def test_the_floor_is_half_the_smallest_probability_but_never_above_that_of_float16(smallest, floor):
    values = np.array([[1.0, 0.0, smallest]], np.float32)
    assert output_checks.probability_floor(values) == pytest.approx(floor, rel=1e-2)
    assert output_checks.probability_floor(np.zeros((1, 3), np.float32)) == 2.0**-25
