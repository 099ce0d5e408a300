from __future__ import annotations

import math

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.logit_scale import check_factor, check_logarithm

# The learned scales of OpenAI's CLIP, SigLIP and SigLIP 2, the beginning of CLIP's training, and the largest allowed.
USUAL = [100.0, 117.33, 112.67, 1 / 0.07, 5.5, 9999.0]


@pytest.mark.parametrize("factor", USUAL)
def test_usual_factors_pass_without_a_word(factor):
    assert check_factor(factor, "logit_scale") is None
    assert check_logarithm(math.log(factor), "logit_scale") is None


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (0.0, "is 0;"),
        (-4.6, "is -4.6;"),
        (math.nan, "is nan;"),
        (math.inf, "is inf;"),
        (10001.0, "beyond 10000"),
        (math.exp(100), "beyond 10000"),
        (4.6052, "the logarithm of 100"),
        (math.log(100), "the logarithm of 100"),
        (2.6593, "the logarithm of 1 / 0.07"),
    ],
)
def test_what_is_no_factor_is_refused_by_name(factor, said):
    with pytest.raises(InputError, match=r"^model 'x': logit_scale is ") as error:
        check_factor(factor, "model 'x': logit_scale")
    assert said in str(error.value)
    assert "give the factor from cosines to logits" in str(error.value)


@pytest.mark.parametrize("logarithm", [100.0, 14.3, 117.0, math.nan, math.inf])
def test_a_factor_in_place_of_its_logarithm_is_refused(logarithm):
    with pytest.raises(InputError, match="no logarithm of a factor"):
        check_logarithm(logarithm, "logit_scale")


def test_a_logarithm_taken_twice_is_refused():
    with pytest.raises(InputError, match="the logarithm of 100"):
        check_logarithm(math.log(math.log(100)), "logit_scale")


def test_a_logarithm_without_a_factor_above_0_is_refused():
    with pytest.raises(InputError, match="is 0;"):
        check_logarithm(-1e4, "logit_scale")


@pytest.mark.parametrize("factor", [1.0, 4.9, 4.5, 0.01])
def test_a_small_factor_is_a_warning(factor):
    for warning in (check_factor(factor, "scale"), check_logarithm(math.log(factor), "scale")):
        assert warning is not None
        assert f"scale is {factor:g}" in warning
