"""Local features of quantized towers, made by their own quantized layers."""

import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.data.batches import batches
from pytest_qreliab.data.sources import builtin
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine import unpack
from pytest_qreliab.quantizers.inspection import coverage

SHOWN = ["vit", "vit-average-pool", "vit-attention-pool", "resnet", "custom-text", "coca"]


@pytest.mark.parametrize("architecture", SHOWN, indirect=True)
def test_unpacking_does_not_change_them(architecture, noise):
    copy = architecture.copy()
    unpack.unpack(copy, "both")
    for found, expected in zip(*(c.encode_image_with_local(noise(c)) for c in (copy, architecture)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", SHOWN, indirect=True)
@pytest.mark.parametrize("method", ["minmax", "smoothquant", "quarot"])
def test_their_error_falls_as_bits_rise(architecture, quantize, noise, method):
    images = noise(architecture)
    expected = F.normalize(architecture.encode_image_with_local(images)[2], dim=-1)

    def error(bits):
        clip = quantize(architecture, method, bits, "vision", activations="dynamic")
        features, _, found = clip.encode_image_with_local(images)
        assert torch.equal(features, clip.encode_image_with_map(images)[0])
        assert found.shape == expected.shape
        return float((F.normalize(found, dim=-1) - expected).norm(dim=-1).mean())

    # Static ranges are of mixed values; of a random model's, which point all ways, they cut off those of one patch.
    assert error(Bits(2, 8)) > error(Bits(4, 8)) > 2 * error(Bits(8, 8)) > 0


def test_static_ranges_hold_the_values_of_a_trained_model(tiny, quantize):
    train, test = (builtin.digits(part).first_evenly(64) for part in ("train", "test"))
    images = next(iter(batches(test, tiny.preprocess)))
    expected = F.normalize(tiny.encode_image_with_local(images)[2], dim=-1)
    data = Calibration.split(train, ("two", "seven"), ("{}",))
    clip = quantize(tiny, "minmax", Bits(8, 8), "vision", data=data)
    found = F.normalize(clip.encode_image_with_local(images)[2], dim=-1)
    assert float((found - expected).norm(dim=-1).mean()) < 0.04


@pytest.mark.parametrize("quantizer", ["torchao", "bitsandbytes"])
def test_kernels_of_other_packages(tiny, quantize, noise, quantizer):
    pytest.importorskip(quantizer, reason=f"the extra pytest-qreliab[{quantizer}] is not installed")
    images = noise(tiny)
    expected = tiny.encode_image_with_local(images)[2]
    found = quantize(tiny, quantizer, Bits(4)).encode_image_with_local(images)[2]
    assert found.shape == expected.shape
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.5


def test_onnx_shows_none(tiny, quantize, noise):
    pytest.importorskip("onnxruntime", reason="the extra pytest-qreliab[onnxruntime] is not installed")
    clip = quantize(tiny, "onnxruntime", Bits(8, 8))
    features, patch_map, found = clip.encode_image_with_local(noise(tiny))
    assert torch.equal(features, clip.encode_image(noise(tiny)))
    assert patch_map is not None
    assert found is None


def test_coverage_says_the_same_of_a_clip_that_was_asked_for_them(architecture_of, quantize, noise):
    clip = quantize(architecture_of("vit"), "minmax", Bits(4, 8))
    before = coverage.measure(architecture_of("vit"), clip, Bits(4, 8), "both")
    clip.encode_image_with_local(noise(clip))
    assert coverage.measure(architecture_of("vit"), clip, Bits(4, 8), "both") == before
