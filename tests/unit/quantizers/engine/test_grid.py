import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pytest_qreliab.config.formats import FLOATS, Format, integer
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import Block, Grid, Scheme

weights = npst.arrays(
    np.float32, (4, 9), elements=st.floats(-8, 8, width=32, allow_subnormal=False).filter(lambda x: abs(x) > 1e-3)
)
widths = st.integers(2, 8)
W4 = Scheme(number=integer(4))


def rounded(weight, scheme, rule=grid.minmax) -> torch.Tensor:
    weight = torch.as_tensor(weight)
    rows = grid.to_rows(weight, scheme.granularity)
    return grid.from_rows(scheme.fit_values(rows, rule).round(rows), weight, scheme.granularity)


@given(weights, widths, st.booleans(), st.booleans())
def test_rounding_agrees_with_torchs_fake_quantization(weight, bits, symmetric, restricted):
    w = torch.from_numpy(weight)
    scheme = Scheme(number=integer(bits), symmetric=symmetric, restricted_range=restricted)
    laid = scheme.fit_values(w, grid.minmax)
    scale = laid.scale.flatten()
    if symmetric:
        zero, (low, high) = torch.zeros(4, dtype=torch.int32), scheme.levels()
    else:
        zero, low, high = -laid.low.flatten().to(torch.int32), 0, 2**bits - 1
    expected = torch.fake_quantize_per_channel_affine(w, scale, zero, 0, low, high)
    # torch multiplies by the reciprocal, which can put a value that lies on a tie one step away.
    steps = ((laid.round(w) - expected) / scale[:, None]).abs()
    ties = ((w / scale[:, None]).frac().abs() - 0.5).abs() < 1e-4
    assert bool(((steps < 1e-3) | ties).all())


@given(weights, widths, st.booleans())
def test_rounding_errs_by_half_a_step_at_most_and_a_restricted_range_keeps_the_largest(weight, bits, restricted):
    w, scheme = torch.from_numpy(weight), Scheme(number=integer(bits), restricted_range=restricted)
    out, largest = rounded(w, scheme), w.abs().amax(1, keepdim=True)
    step = largest / (2 ** (bits - 1) - (1 if restricted else 0.5))
    assert bool(((out - w).abs() <= step / 2 * (1 + 1e-4)).all())
    if restricted:
        torch.testing.assert_close(out.abs().amax(1, keepdim=True), largest)
    assert all(len(row.unique()) <= 2**bits - restricted for row in out)


@given(weights, widths, st.sampled_from(["tensor", "channel", 4, 9, 16]), st.booleans())
def test_all_that_share_a_grid_have_at_most_so_many_values_and_zero_stays_zero(weight, bits, granularity, symmetric):
    weight[0, 0] = 0
    out = rounded(weight, Scheme(number=integer(bits), symmetric=symmetric, granularity=granularity))
    assert out.shape == (4, 9)
    assert out[0, 0] == 0
    assert all(len(row.unique()) <= 2**bits for row in grid.to_rows(out, granularity))


@given(weights, widths)
def test_rounding_again_changes_nothing(weight, bits):
    scheme = Scheme(number=integer(bits), restricted_range=True)
    once = rounded(weight, scheme)
    torch.testing.assert_close(rounded(once, scheme), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("restricted", [False, True])
def test_a_symmetric_grid_is_torchaos(bits, restricted):
    primitives = pytest.importorskip("torchao.quantization.quant_primitives", reason="torchao is not installed")
    w = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    scheme = Scheme(number=integer(bits), restricted_range=restricted)
    low, high = scheme.levels()
    of = {"quant_min": low, "quant_max": high}
    scale, zero = primitives.choose_qparams_affine(
        w, primitives.MappingType.SYMMETRIC, (1, 64), torch.int8, scale_dtype=torch.float32, **of
    )
    codes = primitives.quantize_affine(w, (1, 64), scale, zero, torch.int8, **of)
    expected = primitives.dequantize_affine(codes, (1, 64), scale, zero, torch.int8, **of)
    # The largest lies on a tie, from which torchao's reciprocal may move it.
    largest = w.abs() == w.abs().amax(1, keepdim=True)
    torch.testing.assert_close(rounded(w, scheme)[~largest], expected[~largest])
    assert bool(((rounded(w, scheme) - expected).abs() <= scale[:, None] * 1.001).all())


def test_a_symmetric_grid_uses_all_its_levels():
    uniform = torch.linspace(-1, 1, 1001)[None]
    assert len(rounded(uniform, Scheme(number=integer(2))).unique()) == 4
    assert len(rounded(uniform, Scheme(number=integer(2), restricted_range=True)).unique()) == 3


def test_an_asymmetric_grid_uses_all_its_levels_on_one_side():
    x = torch.linspace(0, 1, 1000)[None]
    both, one = (rounded(x, Scheme(number=integer(3), symmetric=symmetric)) for symmetric in (True, False))
    assert len(both.unique()) == 4
    assert len(one.unique()) == 8
    assert float((one - x).abs().max()) < 0.5 * float((both - x).abs().max())


@pytest.mark.parametrize(
    ("bits", "levels", "restricted"), [(2, (-2, 1), (-1, 1)), (4, (-8, 7), (-7, 7)), (8, (-128, 127), (-127, 127))]
)
def test_levels(bits, levels, restricted):
    assert Scheme(number=integer(bits)).levels() == levels
    assert Scheme(number=integer(bits), restricted_range=True).levels() == restricted


SCHEMES = [
    *(Scheme(number=integer(4), symmetric=symmetric) for symmetric in (True, False)),
    *(Scheme(number=FLOATS[name]) for name in ("fp8", "mxfp4")),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.number.name)
@pytest.mark.parametrize("rule", [grid.minmax, grid.mse, grid.percentile(99)])
def test_a_channel_of_zeros_stays_zero_and_nan_stays_nan(rule, scheme):
    out = rounded(torch.tensor([[0.0, 0, 0], [1, torch.nan, 2]]), scheme, rule)
    assert out[0].tolist() == [0, 0, 0]
    assert out[1].isnan().all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.number.name)
def test_numbers_too_small_for_a_scale_become_zero_and_not_nan(scheme):
    out = rounded(torch.tensor([[1e-45, -1e-45, 0]]), scheme)
    assert bool((out.abs() <= 3e-45).all())


def test_nan_and_infinity_in_activations():
    x = torch.tensor([1.0, float("nan"), float("inf"), float("-inf")])
    out = Grid(torch.tensor(0.5), -8, 7, integer(4)).round(x)
    assert out[0] == 1.0
    assert out[1].isnan()
    assert out[2:].tolist() == [3.5, -4.0]


@pytest.mark.parametrize("name", ["int2", "int5", "fp8", "mxfp6", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_the_best_of_its_candidates_by_brute_force(name, symmetric):
    number = FLOATS.get(name) or integer(int(name[-1]))
    x = np.random.default_rng(0).standard_t(2, (50, number.block or 40)).astype(np.float32)
    values, scheme = torch.from_numpy(x), Scheme(number=number, symmetric=symmetric)
    of_all = values.abs().amax() / (448 * 6)  # of NVFP4, however the blocks are shrunk

    def errors(laid):
        return (laid.round(values) - values).square().sum(1)

    lowest, highest = grid.minmax(values, scheme)
    tried = [2.0**k for k in range(-7, 3)] if number.scale == "e8m0" else [k / 100 for k in range(1, 151)]
    if number.scale == "float32":
        tried = tried[:100]
    best = torch.stack([errors(scheme.fit(lowest * k, highest * k, of_all)) for k in tried]).amin(0)
    found = errors(scheme.fit_values(values, grid.mse))
    if number.kind == "integer":
        torch.testing.assert_close(found, best, rtol=1e-4, atol=0)
    assert float(found.sum()) < 1.02 * float(best.sum())  # floats try fewer
    minmax = errors(scheme.fit_values(values, grid.minmax))
    assert bool((found <= minmax * (1 + 1e-5)).all())
    assert float(found.sum()) < float(minmax.sum())


@pytest.mark.parametrize(("bits", "restricted", "step"), [(4, False, 0.3352), (3, False, 0.586), (2, True, 1.224)])
def test_mse_finds_the_published_optimal_step_for_a_gaussian(bits, restricted, step):
    """Max 1960, table II: steps of 16, 8 and 3 equidistant levels, which for even numbers have no level at zero."""
    x = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    laid = Scheme(number=integer(bits), restricted_range=restricted).fit_values(x, grid.mse)
    assert float(laid.scale) == pytest.approx(step, rel=0.07)


@given(st.floats(60, 100), st.booleans(), st.integers(0, 50))
def test_percentile_keeps_at_least_that_share_and_is_numpys_nearest_rank(share, symmetric, seed):
    x = np.random.default_rng(seed).normal(size=(3, 101)).astype(np.float32)
    lowest, highest = grid.percentile(share)(torch.from_numpy(x), Scheme(number=integer(8), symmetric=symmetric))
    values = np.abs(x) if symmetric else x
    expected = np.percentile(values, share, axis=1, method="higher", keepdims=True)
    kept = np.mean(values <= expected, axis=1)
    assert bool((kept >= share / 100 - 1e-9).all())
    if symmetric:  # a tail that ends before the bound stays as it is
        np.testing.assert_array_equal(highest.numpy(), np.minimum(expected, x.max(1, keepdims=True)))
        np.testing.assert_array_equal(lowest.numpy(), np.maximum(-expected, x.min(1, keepdims=True)))
    else:
        np.testing.assert_array_equal(highest.numpy(), expected)


def test_the_hundredth_percentile_is_minmax():
    x = torch.randn(5, 77)
    for symmetric in (True, False):
        scheme = Scheme(number=integer(5), symmetric=symmetric)
        a, b = (scheme.fit_values(x, rule) for rule in (grid.percentile(100), grid.minmax))
        torch.testing.assert_close(a.round(x), b.round(x))


@pytest.mark.parametrize("shape", [(6, 70), (6, 5, 3, 3), (6, 64, 1, 1), (6, 1, 3, 3), (6, 33, 2, 2)])
@pytest.mark.parametrize("granularity", ["tensor", "channel", 8, 32, Block(32), Block(16)])
def test_rows_and_back(shape, granularity):
    weight = torch.randn(shape)
    rows = grid.to_rows(weight, granularity)
    assert torch.equal(grid.from_rows(rows, weight, granularity), weight)
    assert torch.equal(rows.abs().sum(), weight.abs().sum()) or abs(rows.abs().sum() / weight.abs().sum() - 1) < 1e-5


def test_blocks_lie_along_the_input_channels_at_each_place_of_a_kernel():
    weight = torch.arange(2 * 40 * 3 * 3).view(2, 40, 3, 3).float()
    rows = grid.to_rows(weight, Block(32))
    assert rows.shape == (2 * 3 * 3 * 2, 32)
    assert rows[0].tolist() == weight[0, :32, 0, 0].tolist()
    assert rows[1].tolist() == [*weight[0, 32:, 0, 0].tolist(), *[0.0] * 24]
    assert rows[2].tolist() == weight[0, :32, 0, 1].tolist()
    flat = weight.flatten(1)
    assert torch.equal(grid.to_rows(flat, Block(32)), grid.to_rows(flat, 32))


@pytest.mark.parametrize("groups", [1, 4, 40])
def test_a_convolution_of_one_place_has_the_blocks_of_a_linear(groups):
    weight = torch.randn(80, 40 // groups, 1, 1)
    scheme = Scheme(number=FLOATS["mxfp4"], granularity=Block(32))
    assert torch.equal(rounded(weight, scheme).flatten(1), rounded(weight.flatten(1), scheme))


def test_the_weights_that_share_a_scale_are_the_formats_or_the_parameters():
    assert grid.granularity(Format.of("w4"), "tensor") == "tensor"
    assert grid.granularity(Format.of("w4g128"), "channel") == 128
    assert not isinstance(grid.granularity(Format.of("w4g128"), "channel"), Block)
    assert grid.granularity(Format.of("fp8"), "channel") == "channel"
    assert isinstance(grid.granularity(Format.of("nvfp4w"), "channel"), Block)
    assert grid.granularity(Format.of("nvfp4w"), "channel") == 16


def test_float8_weights_are_torchs_cast_of_the_scaled_channel():
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    for name, dtype in (("fp8", torch.float8_e4m3fn), ("fp8e5m2", torch.float8_e5m2)):
        largest = torch.finfo(dtype).max
        scale = weight.abs().amax(1, keepdim=True) / largest
        expected = (weight / scale).clamp(-largest, largest).to(dtype).float() * scale
        assert torch.equal(rounded(weight, Scheme(number=FLOATS[name])), expected)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_is_a_cast(name, dtype):
    weight = F.pad(torch.randn(3, 20), (1, 1), value=1e6)
    for rule in (grid.minmax, grid.mse, grid.percentile(90)):
        assert torch.equal(rounded(weight, Scheme(number=FLOATS[name]), rule), weight.to(dtype).float())
