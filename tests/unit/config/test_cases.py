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


@pytest.mark.parametrize("text", ["w4", "w4a8", "fp16", "bf16", "fp32", "unknown"])
def test_bits_of_recorded_outputs_are_read_as_they_are_written(text):
    assert str(Bits.of(text)) == str(Bits.of(f" {text.upper()} ")) == text


def test_bits_of_recorded_outputs_differ_from_one_another():
    assert len({Bits.of(text) for text in ("w8", "w8a8", "fp16", "bf16", "fp32", "unknown")}) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "'8' does not say of what; write w8 (weights only) or w8a8"),
        ("fp8", "'fp8' is no bit width;"),
        ("w16", "16 bits in 'w16' is out of range"),
    ],
)
def test_bits_of_recorded_outputs_that_are_none(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Bits.of(text)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["recorded:/runs/a/q.npz"], ["recorded:q.npz"]),
        (["recorded:/runs/a/q.npz", "recorded:/runs/b/q.npz"], ["recorded:a/q.npz", "recorded:b/q.npz"]),
        (["recorded:x/run/q.npz", "recorded:y/run/q.npz"], ["recorded:x/run/q.npz", "recorded:y/run/q.npz"]),
        (["recorded:q.npz", "recorded:old/q.npz"], ["recorded:q.npz", "recorded:old/q.npz"]),
        (["artifact:a/q.npz", "recorded:b/q.npz"], ["artifact:q.npz", "recorded:q.npz"]),
        (["minmax", "artifact:out/w8.pt+rescale"], ["minmax", "artifact:w8.pt+rescale"]),
    ],
)
def test_files_of_one_name_are_shown_with_the_folders_that_tell_them_apart(names, shown):
    kinds = [Quantization(quantizer=name, bits=Bits(8), scope="both", needs_data=False) for name in names]
    assert [case.quantization for case in expand(["m"], kinds, ["x"])] == [f"{name} w8" for name in shown]
