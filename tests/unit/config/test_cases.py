import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.config.cases import Bits, Build, Case, Quantization, expand, parse_scope
from pytest_qreliab.errors import InputError


@pytest.mark.parametrize(
    ("text", "bits"),
    [("4", 4), (" 8 ", 8), ("w2", Bits(2)), ("w4a8", Bits(4, 8)), ("W8A8", Bits(8, 8)), ("w8a2", Bits(8, 2))],
)
def test_bits_that_are_understood(text, bits):
    assert Bits.parse(text) == bits


@given(st.integers(2, 8), st.none() | st.integers(2, 8))
def test_bits_are_read_as_they_are_written(weights, activations):
    bits = Bits(weights, activations)
    assert Bits.parse(str(bits)) == bits


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("9", "'8'"), ("1", "'2'"), ("w9", "'w8'"), ("w4a9", "'w4a8'"), ("w16a16", "'w8a16'"), ("four", "'4'"),
     ("w4b8", "'w4a8'"),],
)  # fmt: skip
def test_bits_that_are_not_name_the_nearest(text, nearest):
    with pytest.raises(InputError, match=f"did you mean {nearest}"):
        Bits.parse(text)


@pytest.mark.parametrize("text", ["", "-4", "4.0", "w", "a8", "٤", "w٤", "fp16"])
def test_bits_that_are_nothing(text):
    with pytest.raises(InputError, match="write 4"):
        Bits.parse(text)


def test_scope():
    assert parse_scope("text") == "text"
    with pytest.raises(InputError, match="did you mean 'vision'"):
        parse_scope("vison")


def test_cases_come_in_the_order_of_the_axes_with_the_model_slowest():
    kinds = [
        Quantization(quantizer="q", bits=bits, scope=scope, needs_data=needs)
        for bits, needs in ((Bits(4, 8), True), (Bits(4), False))
        for scope in ("both", "text")
    ]
    cases = expand(["m1", "m2"], kinds, ["x", "y"])
    assert [case.id for case in cases[:8]] == [
        "m1/q/w4a8/x",
        "m1/q/w4a8/y",
        "m1/q/w4a8/text/x",
        "m1/q/w4a8/text/y",
        "m1/q/w4/x",
        "m1/q/w4/y",
        "m1/q/w4/text/x",
        "m1/q/w4/text/y",
    ]
    assert len(cases) == 16
    assert len({case.id for case in cases}) == 16
    # Without calibration data a build serves every benchmark.
    assert len({case.build for case in cases}) == 12


@given(st.text(min_size=1, max_size=30))
def test_ids_are_one_word_for_pytests_k(name):
    case = Case(Build(model=name, quantizer="q", bits=Bits(4), scope="both", calibration=None), "b")
    assert re.fullmatch(r"[\w:+\-.\\/]+", case.id, re.ASCII)
