import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.config.cases import Build, Case, Quantization, expand, parse_scope
from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError


def test_scope():
    assert parse_scope("text") == "text"
    with pytest.raises(InputError, match="did you mean 'vision'"):
        parse_scope("vison")


def test_cases_come_in_the_order_of_the_axes_with_the_model_slowest():
    kinds = [
        Quantization(quantizer="q", bits=bits, scope=scope, needs_data=needs)
        for bits, needs in ((Format.integers(4, 8), True), (Format.integers(4), False))
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
    case = Case(Build(model=name, quantizer="q", bits=Format.integers(4), scope="both", calibration=None), "b")
    assert re.fullmatch(r"[\w:+\-.\\/]+", case.id, re.ASCII)


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
    kinds = [Quantization(quantizer=name, bits=Format.integers(8), scope="both", needs_data=False) for name in names]
    assert [case.quantization for case in expand(["m"], kinds, ["x"])] == [f"{name} w8" for name in shown]
