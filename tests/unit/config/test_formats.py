import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.config.formats import FLOATS, FORMS, Format, integer
from pytest_qreliab.errors import InputError


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("4", 4),
        (" 8 ", 8),
        ("w2", Format.integers(2)),
        ("w1a1", Format.integers(1, 1)),
        ("w4a8", Format.integers(4, 8)),
        ("W8A8", Format.integers(8, 8)),
        ("w4g128", Format(integer(4), group=128)),
        ("w4g64a8", Format(integer(4), integer(8), 64)),
        ("fp8", Format(FLOATS["fp8"], FLOATS["fp8"])),
        ("FP8w", Format(FLOATS["fp8"])),
        ("nvfp4w", Format(FLOATS["nvfp4"])),
        ("bf16", Format(FLOATS["bf16"], FLOATS["bf16"])),
    ],
)
def test_bits_that_are_understood(text, bits):
    assert Format.parse(text) == bits


@given(st.integers(1, 8), st.none() | st.integers(1, 8), st.none() | st.integers(2, 512))
def test_bits_are_read_as_they_are_written(weights, activations, group):
    bits = Format(integer(weights), None if activations is None else integer(activations), group)
    assert Format.parse(str(bits)) == Format.of(str(bits)) == bits


@pytest.mark.parametrize("text", FORMS)
def test_floats_are_read_as_they_are_written(text):
    assert str(Format.parse(text.upper())) == str(Format.of(text)) == text


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("9", "'8'"), ("0", "'1'"), ("w9", "'w8'"), ("w4a9", "'w4a8'"), ("w16a16", "'w8a16'"), ("four", "'4'"),
     ("w4b8", "'w4a8'"), ("fp8a", "'fp8'"), ("mxfp5", "'mxfp8'"), ("nvfp4a", "'nvfp4'"), ("bfloat16", "'bf16'")],
)  # fmt: skip
def test_bits_that_are_not_name_the_nearest(text, nearest):
    with pytest.raises(InputError, match=f"did you mean {nearest}"):
        Format.parse(text)


@pytest.mark.parametrize("text", ["", "-4", "4.0", "w", "a8", "٤", "w٤", "w4g", "g128", "w4a8g128"])
def test_bits_that_are_nothing(text):
    with pytest.raises(InputError, match=r"write 4 .*w4g128.*, or fp16, bf16, fp8, .*nvfp4"):
        Format.parse(text)


def test_a_group_of_one_is_refused():
    with pytest.raises(InputError, match=r"a group of 1 in 'w4g1' shares nothing: write 2 or more, as in w4g128"):
        Format.parse("w4g1")


@pytest.mark.parametrize("text", ["w4", "w4a8", "fp16", "bf16", "fp32", "unknown", "fp8w"])
def test_bits_of_recorded_outputs_are_read_as_they_are_written(text):
    assert str(Format.recorded(text)) == str(Format.recorded(f" {text.upper()} ")) == text


def test_bits_of_recorded_outputs_differ_from_one_another():
    assert len({Format.recorded(text) for text in ("w8", "w8a8", "fp16", "bf16", "fp32", "unknown")}) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "'8' does not say of what; write w8 (weights only) or w8a8"),
        ("fp7", "'fp7' is no format;"),
        ("w16", "16 bits in 'w16' is out of range"),
    ],
)
def test_bits_of_recorded_outputs_that_are_none(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Format.recorded(text)


@pytest.mark.parametrize(
    ("text", "nearest"), [("fp16", "w8a8"), ("fp8w", "w8"), ("mxfp6", "w6a6"), ("nvfp4", "w4a4"), ("w4g32", "w4")]
)
def test_the_nearest_integers_have_the_same_width_or_the_widest(text, nearest):
    assert str(Format.of(text).as_integers()) == nearest


def test_a_layers_own_weights_keep_the_activations_of_the_case_but_for_their_own():
    case = Format.of("w3a8")
    assert str(case.with_weights(Format.of("w8"))) == "w8a8"
    assert str(case.with_weights(Format.of("w4g64a4"))) == "w4g64a4"
    assert str(Format.of("w3").with_weights(Format.of("w8"))) == "w8"


@pytest.mark.parametrize(
    ("name", "bits", "kind", "static", "dynamic"),
    [("fp16", 16, "float", False, False), ("bf16", 16, "float", False, False), ("fp8", 8, "float", True, False),
     ("fp8e5m2", 8, "float", True, False), ("mxfp8", 8, "block", False, False), ("mxfp6", 6, "block", False, False),
     ("mxfp4", 4, "block", False, False), ("nvfp4", 4, "block", True, True)],
)  # fmt: skip
def test_what_a_float_type_takes(name, bits, kind, static, dynamic):
    number = FLOATS[name]
    assert (number.bits, number.kind) == (bits, kind)
    assert (number.needs_range(True), number.needs_range(False)) == (static, dynamic)
