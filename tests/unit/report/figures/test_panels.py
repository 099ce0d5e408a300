"""What all plots share."""

import pytest

from pytest_qreliab.report.figures import panels

NAMES = [f"model {number}" for number in range(31)]


def test_models_differ_without_colour():
    assert len({style["linestyle"] for style in panels.line_styles(NAMES[:6])}) == 6


def test_thirty_models_differ_from_each_other():
    styles = panels.line_styles(NAMES)[1:]
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 30


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (4, 4), (5, 3), (6, 3), (9, 3), (12, 4)], ids=lambda number: str(number)
)
def test_panels_are_in_the_fewest_rows_as_even_as_can_be(count, columns):
    assert panels.column_count(count) == columns


@pytest.mark.parametrize(("colour", "ink"), [((1, 1, 1), "black"), ((0, 0, 0.5), "white")], ids=["pale", "dark"])
def test_ink_is_readable_on_any_colour(colour, ink):
    assert panels.readable_ink(colour) == ink
