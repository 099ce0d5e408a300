"""Rounding over different ranges, against torch and against each other."""

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.engine import layers as engine_layers


@pytest.fixture
def pairs(tiny, quantize):
    """Full-precision and rounded weights, (out, in), of the image tower."""

    def of(method, bits, **parameters):
        clip = quantize(tiny, method, bits, "vision", **parameters)
        return engine_layers.weight_pairs(tiny, clip, "vision")[1]

    return of


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("bits", [3, 8])
def test_minmax_is_torchs_fake_quantization_of_each_channel(pairs, bits, restricted):
    high = 2 ** (bits - 1) - 1
    low = -high if restricted else -high - 1
    for pair in pairs("minmax", Format.integers(bits), restricted_range=restricted):
        scale = pair.full.abs().amax(1) / ((high - low) / 2)
        zero = torch.zeros(len(scale), dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(pair.full, scale, zero, 0, low, high)
        steps = ((pair.quantized - expected) / scale[:, None]).abs()
        ties = ((pair.full / scale[:, None]).frac().abs() - 0.5).abs() < 1e-3
        assert bool(((steps < 1e-3) | ties).all()), pair.name


@pytest.mark.parametrize("bits", [2, 4])
def test_mse_errs_no_more_than_minmax_in_any_channel_and_less_in_all(pairs, bits):
    minmax, mse = (
        torch.cat([(pair.quantized - pair.full).square().sum(1) for pair in pairs(method, Format.integers(bits))])
        for method in ("minmax", "mse")
    )
    assert bool((mse <= minmax * (1 + 1e-5)).all())
    assert float(mse.sum()) < 0.9 * float(minmax.sum())


def test_the_percentile_clips_that_share_of_the_magnitudes(pairs):
    for full, clipped in zip(
        pairs("minmax", Format.integers(8)),
        pairs("percentile", Format.integers(8), share=90, restricted_range=True),
        strict=True,
    ):
        bound = torch.quantile(full.full.abs(), 0.9, dim=1, interpolation="higher")
        torch.testing.assert_close(clipped.quantized.abs().amax(1), bound)
    for full, whole in zip(
        pairs("minmax", Format.integers(4)), pairs("percentile", Format.integers(4), share=100), strict=True
    ):
        torch.testing.assert_close(whole.quantized, full.quantized)
