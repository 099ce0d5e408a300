"""What is concluded from matched controls, where the cause is known, and the strength that matches them."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.verdicts.controls import Effect, accounts_for, conclude, match_strength
from pytest_qreliab.statistics.interval import Interval


def effect(change: float, reach: float = 0.02) -> Effect:
    """Return an effect whose interval reaches as far on both sides."""
    return Effect(change=change, interval=Interval(change - reach, change + reach))


@pytest.mark.parametrize(
    ("moved", "lowrank", "noise", "expected"),
    [
        pytest.param(effect(0.1), True, False, "explained by spectral filtering", id="filtering alone, upwards"),
        pytest.param(effect(-0.1), True, False, "explained by spectral filtering", id="filtering alone, downwards"),
        pytest.param(effect(0.1), False, True, "by noise of that size", id="noise alone"),
        pytest.param(effect(0.1), True, True, "by noise of that size", id="both"),
        pytest.param(effect(0.1), None, True, "by noise of that size", id="noise, and filtering is undecided"),
        pytest.param(effect(0.1), False, False, "by neither", id="neither"),
        pytest.param(effect(0.1), True, None, "cannot tell at this n", id="filtering, and noise is undecided"),
        pytest.param(effect(0.1), None, False, "cannot tell at this n", id="not noise, and filtering is undecided"),
        pytest.param(effect(0.1, 0.2), True, False, "cannot tell at this n", id="perhaps nothing moved"),
    ],
)
def test_what_is_concluded(moved, lowrank, noise, expected):
    assert conclude(moved, {"lowrank": lowrank, "noise": noise}) == expected


@pytest.mark.parametrize(
    ("remaining", "expected"),
    [
        pytest.param([effect(0.01)], True, id="hardly anything remains"),
        pytest.param([effect(0.08)], False, id="most remains"),
        pytest.param([effect(-0.09)], False, id="the control moves much farther"),
        pytest.param([effect(0.04)], None, id="half may remain"),
        pytest.param([effect(0.09, 0.01), effect(0.092, 0.01), effect(0.091, 0.01)], False, id="no draw does it"),
        pytest.param([effect(0.09, 0.01), effect(0.01), effect(0.09, 0.01)], True, id="one draw of three does it"),
        pytest.param([effect(0.09, 0.01), effect(0.2, 0.01), effect(-0.07, 0.01)], None, id="another draw might"),
    ],
)
def test_a_control_accounts_for_a_change_of_which_less_than_half_is_left(remaining, expected):
    assert accounts_for(effect(0.1), remaining) is expected


@given(st.floats(1e-6, 1e3), st.floats(0.2, 3), st.floats(1e-3, 1e3))
def test_the_strength_is_found_for_any_curve_that_grows(factor, power, target):
    def ratio(strength: float) -> float:
        return factor * strength**power

    assume(1e-9 < (target / factor) ** (1 / power) < 1e9)
    assert ratio(match_strength(ratio, target)) == pytest.approx(target, rel=0.0051)


def test_a_ratio_out_of_reach_is_told():
    with pytest.raises(InputError, match=r"no control has features with the residual-to-signal ratio 2 "):
        match_strength(lambda strength: 1 - math.exp(-strength), 2.0)


def test_features_that_did_not_change_are_told():
    with pytest.raises(InputError, match="are those of full precision, so that there is nothing to match"):
        match_strength(lambda strength: strength, 0.0)
