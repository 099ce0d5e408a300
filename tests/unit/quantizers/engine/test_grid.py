import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pytest_qreliab.quantizers.engine import grid

weights = npst.arrays(
    np.float32, (4, 9), elements=st.floats(-8, 8, width=32, allow_subnormal=False).filter(lambda x: abs(x) > 1e-3)
)
widths = st.integers(2, 8)


def rounded(weight, bits, symmetric=True, granularity="channel", rule=grid.minmax) -> torch.Tensor:
    weight = torch.as_tensor(weight)
    rows = grid.to_rows(weight, granularity)
    return grid.from_rows(grid.fit_grid(*rule(rows, bits, symmetric), bits, symmetric).round(rows), weight)


@given(weights, widths, st.booleans())
def test_rounding_agrees_with_torchs_fake_quantization(weight, bits, symmetric):
    w = torch.from_numpy(weight)
    laid = grid.fit_grid(*grid.minmax(w, bits, symmetric), bits, symmetric)
    scale = laid.scale.flatten()
    if symmetric:
        q = grid.levels(bits)
        zero, low, high = torch.zeros(4, dtype=torch.int32), -q, q
    else:
        zero, low, high = -laid.low.flatten().to(torch.int32), 0, 2**bits - 1
    expected = torch.fake_quantize_per_channel_affine(w, scale, zero, 0, low, high)
    # torch multiplies by the reciprocal, which can put a value that lies on a tie one step away.
    steps = ((rounded(weight, bits, symmetric) - expected) / scale[:, None]).abs()
    ties = ((w / scale[:, None]).frac().abs() - 0.5).abs() < 1e-4
    assert bool(((steps < 1e-3) | ties).all())


@given(weights, widths)
def test_rounding_errs_by_half_a_step_at_most_and_keeps_the_largest(weight, bits):
    w, out = torch.from_numpy(weight), rounded(weight, bits)
    largest = w.abs().amax(1, keepdim=True)
    step = largest / grid.levels(bits)
    assert bool(((out - w).abs() <= step / 2 * (1 + 1e-5)).all())
    torch.testing.assert_close(out.abs().amax(1, keepdim=True), largest)
    assert all(len(row.unique()) <= 2**bits - 1 for row in out)


@given(weights, widths, st.sampled_from(["tensor", "channel", 4, 9, 16]), st.booleans())
def test_all_that_share_a_grid_have_at_most_so_many_values_and_zero_stays_zero(weight, bits, granularity, symmetric):
    weight[0, 0] = 0
    out = rounded(weight, bits, symmetric, granularity)
    assert out.shape == (4, 9)
    assert out[0, 0] == 0
    assert all(len(row.unique()) <= 2**bits for row in grid.to_rows(out, granularity))


@given(weights, widths)
def test_rounding_again_changes_nothing(weight, bits):
    once = rounded(weight, bits)
    torch.testing.assert_close(rounded(once, bits), once, rtol=1e-6, atol=0)


def test_an_asymmetric_grid_uses_all_its_levels_on_one_side():
    x = torch.linspace(0, 1, 1000)[None]
    both, one = (rounded(x, 3, symmetric, "channel") for symmetric in (True, False))
    assert len(both.unique()) == 4
    assert len(one.unique()) == 8
    assert float((one - x).abs().max()) < 0.5 * float((both - x).abs().max())


@pytest.mark.parametrize(("bits", "levels"), [(2, 1), (3, 3), (4, 7), (8, 127)])
def test_levels(bits, levels):
    assert grid.levels(bits) == levels


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rule", [grid.minmax, grid.mse, grid.percentile(99)])
def test_a_channel_of_zeros_stays_zero_and_nan_stays_nan(rule, symmetric):
    weight = [[0.0, 0, 0], [1, torch.nan, 2]]
    out = rounded(torch.tensor(weight), 4, symmetric, rule=rule)
    assert out[0].tolist() == [0, 0, 0]
    assert out[1].isnan().all()


def test_nan_and_infinity_in_activations():
    x = torch.tensor([1.0, float("nan"), float("inf"), float("-inf")])
    out = grid.Grid(torch.tensor(0.5), -7, 7).round(x)
    assert out[0] == 1.0
    assert out[1].isnan()
    assert out[2:].tolist() == [3.5, -3.5]


@given(st.integers(0, 99), widths, st.booleans())
def test_mse_is_the_best_of_its_candidates_by_brute_force(seed, bits, symmetric):
    x = np.random.default_rng(seed).standard_t(2, (1, 40)).astype(np.float32)
    values = torch.from_numpy(x)
    error = float((rounded(x, bits, symmetric, rule=grid.mse) - values).square().sum())
    lowest, highest = grid.minmax(values, bits, symmetric)
    candidates = [
        float(
            (grid.fit_grid(lowest * k / 100, highest * k / 100, bits, symmetric).round(values) - values).square().sum()
        )
        for k in range(1, 101)
    ]
    assert error == pytest.approx(min(candidates), rel=1e-4)


def test_mse_finds_the_published_optimal_clipping_of_a_gaussian():
    """Banner et al. 2019: alpha* / sigma = 2.83 at 4 bits and 1.71 at 2, for 2^bits levels, here 2^bits - 1."""
    x = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    _, four = grid.mse(x, 4, True)
    assert 2.4 < float(four) < 2.9
    _, two = grid.mse(x, 2, True)
    assert float(two) == pytest.approx(1.22, abs=0.06)  # Max 1960: three levels, step 1.224


@given(st.floats(60, 100), st.booleans(), st.integers(0, 50))
def test_percentile_keeps_at_least_that_share_and_is_numpys_nearest_rank(share, symmetric, seed):
    x = np.random.default_rng(seed).normal(size=(3, 101)).astype(np.float32)
    lowest, highest = grid.percentile(share)(torch.from_numpy(x), 8, symmetric)
    values = np.abs(x) if symmetric else x
    expected = np.percentile(values, share, axis=1, method="higher", keepdims=True)
    np.testing.assert_array_equal(highest.numpy(), expected)
    assert bool((np.mean(values <= highest.numpy(), axis=1) >= share / 100 - 1e-9).all())
    if symmetric:
        assert torch.equal(lowest, -highest)


def test_the_hundredth_percentile_is_minmax():
    x = torch.randn(5, 77)
    for symmetric in (True, False):
        a, b = (grid.fit_grid(*rule(x, 5, symmetric), 5, symmetric) for rule in (grid.percentile(100), grid.minmax))
        torch.testing.assert_close(a.round(x), b.round(x))


shapes = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(3, 300)),  # of a Linear
    st.tuples(st.integers(1, 6), st.just(1), st.integers(2, 7), st.integers(2, 7)),  # of a depthwise convolution
)
kinds = st.sampled_from(["tensor", "channel", 8, 32])


def drawn(shape, seed, spread=0.02) -> torch.Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def on_grids(weight, bits, granularity) -> bool:
    return all(grid.lies_on_grid(row, bits) for row in grid.to_rows(weight, granularity))


@given(
    shapes,
    st.integers(0, 999),
    widths,
    st.booleans(),
    kinds,
    st.sampled_from([grid.minmax, grid.mse, grid.percentile(95)]),
)
def test_rounded_weights_lie_on_grids_of_their_width_and_so_they_do_rounded_again(
    shape, seed, bits, symmetric, granularity, rule
):
    once = rounded(drawn(shape, seed), bits, symmetric, granularity, rule)
    assert on_grids(once, bits, granularity)
    assert on_grids(rounded(once, bits, symmetric, granularity), bits, granularity)
    assert on_grids(once, 8, granularity)


@given(shapes, st.integers(0, 999), widths, kinds)
def test_float_weights_lie_on_no_grid_by_chance(shape, seed, bits, granularity):
    weight = drawn(shape, seed)
    assert not on_grids(weight, bits, granularity)
    assert not on_grids(rounded(weight, 8, granularity=granularity) + 1e-3 * weight, bits, granularity)


@given(st.integers(5, 300), st.integers(0, 999), st.sampled_from([torch.bfloat16, torch.float16]))
def test_weights_that_were_stored_in_16_bits_are_not_rounded_to_8(inputs, seed, dtype):
    assert not on_grids(drawn((8, inputs), seed).to(dtype).float(), 8, "channel")


def test_grids_that_do_not_pass_through_zero_count():
    values = 0.3123 + 0.0571 * torch.randint(0, 16, (30,), generator=torch.Generator().manual_seed(0))
    assert grid.lies_on_grid(values, 4)
    assert not grid.lies_on_grid(values, 3)


def test_uneven_levels_count_in_rows_that_are_long_enough_to_show_that_they_are_few():
    levels = torch.randn(16, generator=torch.Generator().manual_seed(0))
    picked = levels[torch.arange(64) % 16]
    assert grid.lies_on_grid(picked, 4)
    assert not grid.lies_on_grid(picked[:31], 4)
    assert not grid.lies_on_grid(picked, 3)


@given(st.integers(60, 1000), st.integers(0, 999))
def test_pruned_weights_are_not_rounded(inputs, seed):
    weight = drawn((2, inputs), seed)
    assert not on_grids(torch.where(weight.abs() < 0.02, torch.zeros(()), weight), 8, "channel")


@pytest.mark.parametrize("row", [[0.0] * 9, [0.7] * 5, [-0.31], [0.0, 0.0, 0.123, 0.0]])
@pytest.mark.parametrize("bits", [2, 8])
def test_rows_of_one_value_lie_on_a_grid_as_they_are(row, bits):
    assert grid.lies_on_grid(torch.tensor(row), bits)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 8), (torch.float16, 4), (torch.bfloat16, 4)])
@pytest.mark.parametrize("count", [9, 64])
def test_a_grid_is_known_after_storing_in_half_precision_and_halves_are_no_grid(dtype, bits, symmetric, count):
    weight = torch.randn(16, count, generator=torch.Generator().manual_seed(0))
    stored = rounded(weight, bits, symmetric).to(dtype).float()
    assert all(grid.lies_on_grid(row, bits) for row in stored)
    assert not any(grid.lies_on_grid(row, bits) for row in weight.to(dtype).float())
