"""Numbers bit by bit against ml_dtypes, blocks against torchao."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pytest_qreliab.config.formats import FLOATS, FP32
from pytest_qreliab.quantizers.engine import grid, number_rounding
from pytest_qreliab.quantizers.engine.grid import Block, Scheme

ELEMENTS = {
    "fp8": ml_dtypes.float8_e4m3fn,
    "fp8e5m2": ml_dtypes.float8_e5m2,
    "mxfp6": ml_dtypes.float6_e2m3fn,
    "mxfp6e3m2": ml_dtypes.float6_e3m2fn,
    "mxfp4": ml_dtypes.float4_e2m1fn,
}
CASTS = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
any_element = pytest.mark.parametrize("name", ELEMENTS)
any_block = pytest.mark.parametrize("name", ["mxfp8", "mxfp8e5m2", "mxfp6", "mxfp6e3m2", "mxfp4"])
any_type = pytest.mark.parametrize("name", [*ELEMENTS, *CASTS])
floats = npst.arrays(np.float32, 64, elements=st.floats(width=32))
blocks = npst.arrays(np.float32, (4, 32), elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False))


def bits(values) -> np.ndarray:
    return np.asarray(values, np.float32).view(np.uint32)


def cast(values, name) -> np.ndarray:
    """What ml_dtypes makes of float32 values; a type with a scale saturates first."""
    with np.errstate(all="ignore"):
        if name in CASTS:
            return values.astype(CASTS[name]).astype(np.float32)
        largest = np.float32(FLOATS[name].largest)
        found = np.clip(values, -largest, largest).astype(ELEMENTS[name]).astype(np.float32)
    return np.where(np.isnan(values), np.float32(np.nan), found)  # the types of four and six bits have no NaN


def assert_same_bits(values, name) -> None:
    found = number_rounding.round_to(torch.from_numpy(values), FLOATS[name]).numpy()
    expected = cast(values, name)
    same = (bits(found) == bits(expected)) | (np.isnan(found) & np.isnan(expected))
    assert same.all(), (values[~same][:4], found[~same][:4], expected[~same][:4])


@any_type
@given(floats)
def test_any_float32_becomes_what_ml_dtypes_makes_of_it(name, values):
    """Subnormals, infinities, NaN and the sign of zero among them."""
    assert_same_bits(values, name)


@any_type
def test_all_exponents_of_float32_with_many_mantissas(name):
    exponents = np.arange(256, dtype=np.uint32)[:, None] << 23
    mantissas = np.linspace(0, 2**23 - 1, 257).astype(np.uint32) | np.array([[0]], np.uint32)
    positive = (exponents | mantissas).ravel()
    assert_same_bits(np.concatenate([positive, positive | 0x80000000]).view(np.float32), name)


def all_values(name) -> np.ndarray:
    """Every finite value of a type, ascending."""
    dtype = ELEMENTS.get(name) or CASTS[name]
    width = {"mxfp4": 4, "mxfp6": 6, "mxfp6e3m2": 6}.get(name, 8 * np.dtype(dtype).itemsize)
    patterns = np.arange(2**width, dtype=np.uint8 if width <= 8 else np.uint16)
    values = patterns.view(dtype).astype(np.float32)
    return np.unique(values[np.isfinite(values)])


@any_type
def test_all_values_of_a_type_stay_and_ties_and_their_neighbours_go_where_they_should(name):
    values = all_values(name)
    assert_same_bits(np.append(values, np.float32(-0.0)), name)
    assert torch.equal(number_rounding.round_to(torch.from_numpy(values), FLOATS[name]), torch.from_numpy(values))
    ties = (values[:-1] / 2 + values[1:] / 2).astype(np.float32)
    for near in (ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))):
        assert_same_bits(near.astype(np.float32), name)
    largest = values[-1]
    with np.errstate(over="ignore"):
        beyond = largest * np.array([1, 1.03, 1.04, 1.0625, 1.07, 1.2, 2], np.float32)
    assert_same_bits(np.concatenate([beyond, -beyond]), name)


@any_element
def test_the_largest_and_the_positive_values_are_the_types_own(name):
    values = all_values(name)
    assert FLOATS[name].largest == values[-1]
    assert number_rounding.positive_values(FLOATS[name]).tolist() == values[values > 0].tolist()


@pytest.mark.parametrize(("name", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_the_largest_of_a_cast_is_the_types_own(name, dtype):
    assert FLOATS[name].largest == float(ml_dtypes.finfo(dtype).max)
    assert FP32.largest == float(np.finfo(np.float32).max)


@given(npst.arrays(np.float32, 32, elements=st.floats(0, width=32, allow_nan=False)))
def test_a_scale_of_mx_is_the_power_of_two_below_by_the_largest_exponent(largest):
    """As e8m0 has it, from 2^-127 to 2^127 (OCP Microscaling Formats 1.0, sections 5.4.1 and 6.3)."""
    for name, top in (("mxfp8", 8), ("mxfp8e5m2", 15), ("mxfp6", 2), ("mxfp6e3m2", 4), ("mxfp4", 2)):
        found = number_rounding.fit_scale(torch.from_numpy(largest), FLOATS[name]).numpy()
        as_e8m0 = found.astype(ml_dtypes.float8_e8m0fnu)
        assert (bits(as_e8m0.astype(np.float32)) == bits(found)).all()
        exponents = np.floor(np.log2(np.maximum(largest, 2.0**-149).astype(np.float64))).clip(max=128)
        expected = 2.0 ** (exponents - top).clip(-127, 127)
        assert found.tolist() == np.where(largest == 0, 1.0, expected).tolist()


def rounded(values: torch.Tensor, name: str, of_all: torch.Tensor | None = None) -> torch.Tensor:
    number = FLOATS[name]
    scheme = Scheme(number=number, granularity=Block(number.block))
    rows = grid.to_rows(values, scheme.granularity)
    return grid.from_rows(scheme.fit_values(rows, grid.minmax, of_all).round(rows), values, scheme.granularity)


@any_block
def test_a_block_of_zeros_stays_zero_and_no_other_block_notices(name):
    values = torch.randn(2, 96)
    values[:, 32:64] = 0
    found = rounded(values, name)
    assert not found[:, 32:64].any()
    assert torch.equal(found[:, :32], rounded(values[:, :32], name))


@any_block
@pytest.mark.parametrize("size", [1.0, 3e-3, 2.0**120, 3e38, 2.0**-126, 2.0**-140, 1e-45])
def test_a_block_of_one_value_keeps_it_but_for_the_mantissa(name, size):
    number = FLOATS[name]
    values = torch.zeros(1, 32)
    values[0, 5] = -size
    found = rounded(values, name)
    least = 2.0**-127 * 2.0 ** (2 - 2 ** (number.exponent - 1) - number.mantissa)  # the smallest of all
    off = max(size * 2.0 ** -(number.mantissa + 1), least / 2)
    if size > number.largest / 2.0 ** np.floor(np.log2(number.largest)) * 2.0 ** np.floor(np.log2(size)):
        off = size / 4  # beyond the largest element it saturates
    assert float(found[0, 5]) == pytest.approx(-size, abs=off)
    assert int(found.count_nonzero()) <= 1


@any_block
def test_small_values_beside_a_huge_one_are_lost(name):
    values = torch.full((1, 64), 1e-3)
    values[0, 0] = 1e12
    found = rounded(values, name)
    assert not found[0, 1:32].any()
    assert bool((found[0, 32:] > 0).all())


@any_block
def test_nan_makes_its_block_nan_and_infinity_stays(name):
    values = torch.randn(1, 96)
    values[0, 3], values[0, 40] = torch.nan, -torch.inf
    found = rounded(values, name)
    assert found[0, :32].isnan().all()
    assert found[0, 40] == -torch.inf
    assert not found[0, 41:64].any()
    assert found[0, 64:].isfinite().all()


@any_block
def test_the_last_block_may_be_shorter(name):
    values = torch.randn(3, 40)
    found = rounded(values, name)
    assert torch.equal(found[:, 32:], rounded(values[:, 32:], name))
    assert torch.equal(found[:, :32], rounded(values[:, :32], name))


@any_block
@given(values=blocks)
def test_rounding_again_changes_nothing(name, values):
    once = rounded(torch.from_numpy(values), name)
    assert torch.equal(rounded(once, name), once)


def test_the_scale_of_a_tensor_gives_the_largest_block_the_largest_e4m3_scale():
    values = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    laid = Scheme(number=FLOATS["nvfp4"]).fit_values(grid.to_rows(values, 16), grid.minmax)
    of_all = values.abs().max() / (6 * 448)
    assert float(laid.scale.max()) == pytest.approx(448 * float(of_all))
    in_units = (laid.scale / of_all).numpy()
    np.testing.assert_allclose(in_units.astype(ml_dtypes.float8_e4m3fn).astype(np.float32), in_units, rtol=1e-6)


def test_blocks_of_nvfp4_that_are_tiny_beside_the_tensor_have_the_smallest_scale():
    """No scale is below 2^-6, the smallest normal e4m3 number."""
    values = torch.zeros(1, 64)
    values[0, 0], values[0, 16:32], values[0, 32:48] = 2688.0, 2.0**-6 * 3, 2.0**-6 * 0.2
    found = rounded(values, "nvfp4")
    assert found[0, 0] == 2688
    assert torch.equal(found[0, 16:32], values[0, 16:32])
    assert not found[0, 32:].any()


def test_a_tensor_of_zeros_in_nvfp4_stays_zero_and_one_nan_is_seen():
    assert not rounded(torch.zeros(2, 32), "nvfp4").any()
    values = torch.randn(2, 32)
    values[1, 3] = torch.nan
    assert rounded(values, "nvfp4", torch.tensor(0.01))[1, :16].isnan().all()
    assert rounded(values, "nvfp4").isnan().any()


def test_values_beyond_a_static_scale_of_the_tensor_saturate():
    values = torch.full((1, 16), 5.0)
    found = rounded(values, "nvfp4", torch.tensor(1.0) / 2688)
    torch.testing.assert_close(found, torch.ones(1, 16))


def torchao_module(name: str):
    place = f"torchao.prototype.mx_formats.{name}"
    return pytest.importorskip(place, reason="the extra pytest-qreliab[torchao] is not installed, or has no MX tensors")


def torchao_mx(values: torch.Tensor, name: str) -> torch.Tensor:
    dtypes = {
        "mxfp8": torch.float8_e4m3fn,
        "mxfp8e5m2": torch.float8_e5m2,
        "mxfp6": "fp6_e2m3",
        "mxfp6e3m2": "fp6_e3m2",
        "mxfp4": torch.float4_e2m1fn_x2,
    }
    mx = torchao_module("mx_tensor")
    return mx.MXTensor.to_mx(values, dtypes[name]).dequantize(torch.float32)


@any_block
@given(values=blocks)
def test_blocks_are_torchaos_mx_tensors(name, values):
    """But for the tiniest values, whose scales torchao bounds."""
    values = torch.from_numpy(values)
    values[values.abs() < 2.0**-100] = 0
    assert torch.equal(rounded(values, name), torchao_mx(values, name))


@given(npst.arrays(np.float32, (4, 32), elements=st.floats(-1e4, 1e4, width=32)), st.booleans())
def test_blocks_are_torchaos_nvfp4_tensors(values, static):
    """Values within the last digits of a tie aside: torchao multiplies by the reciprocal of the scale."""
    values = torch.from_numpy(values)
    values[values.abs() < 1e-30] = 0
    nvfp4 = torchao_module("nvfp4_tensor")
    largest = torch.tensor(300.0) if static else values.abs().max()
    if float(largest) == 0:
        return
    of_all = nvfp4.per_tensor_amax_to_scale(largest)
    theirs = nvfp4.NVFP4Tensor.to_nvfp4(values, per_tensor_scale=of_all)
    ours = rounded(values, "nvfp4", of_all)
    units = values.view(-1, 16) / theirs.get_hp_scales().view(-1, 1)
    ties = (units.view(values.shape).abs() * 4).sub(torch.tensor([1.0, 3, 5, 7, 10, 14, 20])[:, None, None])
    assert bool(((ours == theirs.dequantize(torch.float32)) | (ties.abs() < 1e-4).any(0)).all())
