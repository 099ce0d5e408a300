from dataclasses import replace

import numpy as np
import pytest

from pytest_qreliab.data.dataset import Dataset, measured_sets, requested_sets
from pytest_qreliab.data.images import from_arrays


def images(name):
    return from_arrays(name, np.zeros((2, 4, 4), np.uint8), np.array([0, 1]))


@pytest.fixture
def data():
    return Dataset(
        classes=("cat", "dog"),
        templates=("a {}.", "{} or {}"),
        in_distribution=images("in"),
        calibration=images("calibrating"),
        ood={"letters": images("letters"), "photos": images("photos")},
        near=frozenset({"letters"}),
        labelled={name: images(name) for name in ("shift.a", "corruption.fog.3", "spurious.b")},
    )


def test_captions_are_every_template_with_the_name_in_every_place(data):
    assert data.class_captions[1] == ["a dog.", "dog or dog"]
    assert data.filled("{}") == ["a {}.", "{} or {}"]


def test_sets_have_their_full_names_and_calibration_images_come_last(data):
    names = ["in_distribution", "shift.a", "corruption.fog.3", "spurious.b", "ood.near.letters", "ood.far.photos"]
    assert list(data.sets) == [*names, "calibration"]
    assert data.sets["ood.near.letters"] is data.ood["letters"]
    assert data.sets["calibration"] is data.calibration


def test_captioned_images_come_after_them_and_are_not_measured(data):
    captioned = replace(data, captions=replace(images("pairs"), captions=["x", "y"]))
    assert list(captioned.sets) == [*data.sets, "captions"]
    assert list(measured_sets(captioned, {"labels"})) == list(measured_sets(data, {"labels"}))


def test_only_the_sets_that_are_needed_are_requested(data):
    assert list(requested_sets(data, {"shift", "spurious"})) == ["shift.a", "spurious.b"]
    assert list(requested_sets(data, ["corruption"])) == ["corruption.fog.3"]
    assert requested_sets(data, ()) == {}


def test_every_run_measures_on_some_sets_and_on_others_if_they_are_needed():
    data = Dataset(
        classes=("a", "b"),
        templates=(),
        in_distribution=images("in"),
        calibration=images("calibration"),
        ood={"o": images("o")},
        labelled={"shift.a": images("a"), "corruption.fog.3": images("fog")},
    )
    assert list(measured_sets(data, ())) == ["in_distribution", "ood.far.o"]
    assert list(measured_sets(data, {"shift"})) == ["in_distribution", "shift.a", "ood.far.o"]
    assert list(measured_sets(data, {"labels"})) == ["in_distribution", "ood.far.o", "calibration"]
