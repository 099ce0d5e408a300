import pytest

from pytest_qreliab.config import set_names
from pytest_qreliab.metrics.names import SetName


@pytest.mark.parametrize(
    "name", ["in_distribution", "calibration", "shift.v2", "corruption.fog.3", "spurious.common", "ood.near.letters"]
)
def test_the_names_of_image_sets(name):
    assert set_names.is_set_name(name)


@pytest.mark.parametrize("name", ["", "fog", "shift.", "shift.a.b", "corruption.fog.6", "ood.letters", "ood.near.a b"])
def test_names_of_no_image_set(name):
    assert not set_names.is_set_name(name)


def test_names_are_taken_apart_as_they_are_made():
    for near in (True, False):
        name = set_names.ood_set("letters", near=near)
        assert set_names.is_set_name(name)
        assert SetName.parse(name) == SetName("ood", "near" if near else "far", "letters")
    assert set_names.corruption_cell("fog", 3) == "corruption.fog.3"
    assert SetName.parse("corruption.fog.3") == SetName("corruption", "fog", "3")
