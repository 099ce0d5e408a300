import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.config.formats import FLOATS, integer
from pytest_qreliab.quantizers.engine import grid, grid_recognition
from pytest_qreliab.quantizers.engine.grid import Block, Scheme

widths = st.integers(2, 8)
shapes = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(3, 300)),  # of a Linear
    st.tuples(st.integers(1, 6), st.just(1), st.integers(2, 7), st.integers(2, 7)),  # of a depthwise convolution
)
kinds = st.sampled_from(["tensor", "channel", 8, 32])
rules = st.sampled_from([grid.minmax, grid.mse, grid.percentile(95)])


def drawn(shape, seed, spread=0.02) -> torch.Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(weight, scheme, rule=grid.minmax) -> torch.Tensor:
    rows = grid.to_rows(weight, scheme.granularity)
    return grid.from_rows(scheme.fit_values(rows, rule).round(rows), weight, scheme.granularity)


def of(bits, symmetric=True, granularity="channel") -> Scheme:
    return Scheme(number=integer(bits), symmetric=symmetric, granularity=granularity)


def on_grids(weight, bits, granularity) -> bool:
    return all(grid_recognition.lies_on_grid(row, bits) for row in grid.to_rows(weight, granularity))


@given(shapes, st.integers(0, 999), widths, st.booleans(), kinds, rules)
def test_rounded_weights_lie_on_grids_of_their_width_and_so_they_do_rounded_again(
    shape, seed, bits, symmetric, granularity, rule
):
    scheme = of(bits, symmetric, granularity)
    once = rounded(drawn(shape, seed), scheme, rule)
    assert on_grids(once, bits, granularity)
    assert on_grids(rounded(once, scheme), bits, granularity)
    assert on_grids(once, 8, granularity)


@given(shapes, st.integers(0, 999), widths, kinds)
def test_float_weights_lie_on_no_grid_by_chance(shape, seed, bits, granularity):
    weight = drawn(shape, seed)
    assert not on_grids(weight, bits, granularity)
    assert not on_grids(rounded(weight, of(8, granularity=granularity)) + 1e-3 * weight, bits, granularity)


@given(st.integers(9, 300), st.integers(0, 999), st.sampled_from([torch.bfloat16, torch.float16]))
def test_weights_that_were_stored_in_16_bits_are_not_rounded_to_8(inputs, seed, dtype):
    assert not on_grids(drawn((8, inputs), seed).to(dtype).float(), 8, "channel")


def test_grids_that_do_not_pass_through_zero_count():
    values = 0.3123 + 0.0571 * torch.randint(0, 16, (30,), generator=torch.Generator().manual_seed(0))
    assert grid_recognition.lies_on_grid(values, 4)
    assert not grid_recognition.lies_on_grid(values, 3)


def test_uneven_levels_count_in_rows_that_are_long_enough_to_show_that_they_are_few():
    levels = torch.randn(16, generator=torch.Generator().manual_seed(0))
    picked = levels[torch.arange(64) % 16]
    assert grid_recognition.lies_on_grid(picked, 4)
    assert not grid_recognition.lies_on_grid(picked[:31], 4)
    assert not grid_recognition.lies_on_grid(picked, 3)


@given(st.integers(60, 1000), st.integers(0, 999))
def test_pruned_weights_are_not_rounded(inputs, seed):
    weight = drawn((2, inputs), seed)
    assert not on_grids(torch.where(weight.abs() < 0.02, torch.zeros(()), weight), 8, "channel")


@pytest.mark.parametrize("row", [[0.0] * 9, [0.7] * 5, [-0.31], [0.0, 0.0, 0.123, 0.0]])
@pytest.mark.parametrize("bits", [2, 8])
def test_rows_of_one_value_lie_on_a_grid_as_they_are(row, bits):
    assert grid_recognition.lies_on_grid(torch.tensor(row), bits)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 8), (torch.float16, 4), (torch.bfloat16, 4)])
@pytest.mark.parametrize("count", [9, 64])
def test_a_grid_is_known_after_storing_in_half_precision_and_halves_are_no_grid(dtype, bits, symmetric, count):
    weight = torch.randn(16, count, generator=torch.Generator().manual_seed(0))
    stored = rounded(weight, of(bits, symmetric)).to(dtype).float()
    assert all(grid_recognition.lies_on_grid(row, bits) for row in stored)
    assert not any(grid_recognition.lies_on_grid(row, bits) for row in weight.to(dtype).float())


any_float = pytest.mark.parametrize("name", FLOATS)


def of_float(name) -> Scheme:
    number = FLOATS[name]
    return Scheme(number=number, granularity=Block(number.block) if number.block else "channel")


def all_rounded(weight, name) -> bool:
    rows = grid.to_rows(weight, of_float(name).granularity)
    return all(grid_recognition.is_rounded(row, FLOATS[name]) for row in rows)


@any_float
@pytest.mark.parametrize("shape", [(4, 1), (4, 45), (4, 300), (6, 1, 7, 7), (4, 40, 3, 3)])
@pytest.mark.parametrize("rule", [grid.minmax, grid.mse])
def test_weights_rounded_to_floats_are_known(name, shape, rule):
    assert all_rounded(rounded(drawn(shape, 0), of_float(name), rule), name)


@any_float
def test_float_weights_are_not_rounded_and_no_type_is_taken_for_another_with_fewer_bits(name):
    weight = drawn((8, 96), 0)
    assert not all_rounded(weight, name)
    assert not all_rounded(drawn((8, 1, 3, 3), 0), name) or name == "nvfp4"  # the scale of one value may be anything
    fewer = [other for other, number in FLOATS.items() if number.mantissa < FLOATS[name].mantissa]
    assert not any(all_rounded(rounded(weight, of_float(name)), other) for other in fewer)


@pytest.mark.parametrize("name", ["fp8", "mxfp8", "mxfp4", "nvfp4"])
def test_zeros_are_rounded(name):
    assert all_rounded(torch.zeros(4, 64), name)


@pytest.mark.parametrize("row", [[0.3, -0.3], [-0.3, -0.3, 0.3], [0.7], [0.0, 0.0]], ids=str)
def test_a_value_and_its_negative_are_a_grid_of_one_bit(row):
    assert grid_recognition.lies_on_grid(torch.tensor(row), 1)


@pytest.mark.parametrize("row", [[0.3, -0.31], [0.3, 0.0, -0.3], [0.3, 0.1]], ids=str)
def test_other_values_are_none(row):
    assert not grid_recognition.lies_on_grid(torch.tensor(row), 1)


def test_three_levels_beside_zero_are_a_grid_of_few_bits():
    row = torch.tensor([0.13, 0.23, 0.43])
    assert grid_recognition.lies_on_grid(row, 2)
    assert not grid_recognition.lies_on_grid(row + torch.tensor([0, 1e-3, 0]), 4)
