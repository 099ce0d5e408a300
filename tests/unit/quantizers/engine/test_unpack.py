import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d as PackedPool
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.data.batches import batches
from pytest_qreliab.data.sources import builtin
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine.unpack import Attention, AttentionPool2d, Projection, unpack
from pytest_qreliab.quantizers.inspection import coverage


def masks():
    float_mask = torch.full((5, 7), 0.0).masked_fill_(torch.ones(5, 7, dtype=torch.bool).triu(3), float("-inf"))
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 5:] = True
    return [
        {},
        {"attn_mask": float_mask},
        {"attn_mask": float_mask.isinf()},
        {"attn_mask": torch.randn(2 * 4, 5, 7)},
        {"key_padding_mask": padding},
        {"attn_mask": float_mask.isinf(), "key_padding_mask": padding},
    ]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 12, "vdim": 20}])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_is_multihead_attention(batch_first, sizes, bias):
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(16, 4, bias=bias, batch_first=batch_first, **sizes).eval()
    unpacked = Attention(packed)
    query, key = torch.randn(2, 5, 16), torch.randn(2, 7, sizes.get("kdim", 16))
    value = torch.randn(2, 7, sizes.get("vdim", 16))
    if not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    for mask in masks():
        expected, _ = packed(query, key, value, need_weights=False, **mask)
        out, weights = unpacked(query, key, value, need_weights=False, **mask)
        assert weights is None
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


def test_attention_with_extra_keys_is_refused():
    with pytest.raises(InputError, match="bias_k"):
        Attention(nn.MultiheadAttention(8, 2, add_bias_kv=True))


def test_attention_pool_is_open_clips():
    torch.manual_seed(0)
    packed = PackedPool(3, 16, 4, 10).eval()
    x = torch.randn(2, 16, 3, 3)
    torch.testing.assert_close(AttentionPool2d(packed)(x), packed(x), rtol=1e-5, atol=1e-6)


def test_a_projection_stands_where_a_matrix_stood():
    projection = Projection(4, 3, bias=False)
    x = torch.randn(2, 4)
    torch.testing.assert_close(x @ projection, x @ projection.weight.T)


def test_a_whole_model_gives_the_same_and_holds_nothing_packed(tiny):
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts = ["a handwritten two.", "7"]
    copy = tiny.copy()
    unpack(copy, "both")
    torch.testing.assert_close(copy.encode_image(images), tiny.encode_image(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(copy.encode_text(prompts), tiny.encode_text(prompts), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.MultiheadAttention) for module in copy.module.modules())
    matrices = {name for name, p in copy.module.named_parameters() if p.ndim >= 2}
    layers = {f"{n}.weight" for n, m in copy.module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert matrices - layers == {
        "positional_embedding",
        "token_embedding.weight",
        "visual.positional_embedding",
    }


def test_scope_leaves_the_other_tower_alone(tiny):
    copy = tiny.copy()
    unpack(copy, "vision")
    packed = [name for name, m in copy.module.named_modules() if isinstance(m, nn.MultiheadAttention)]
    assert packed
    assert all(name.startswith("transformer.") for name in packed)
    assert isinstance(copy.module.text_projection, nn.Parameter)


# Towers whose local features are shown.
SHOWN = ["vit", "vit-average-pool", "vit-attention-pool", "resnet", "custom-text", "coca"]


@pytest.mark.parametrize("architecture", SHOWN, indirect=True)
def test_unpacking_does_not_change_local_features(architecture, noise):
    copy = architecture.copy()
    unpack(copy, "both")
    for found, expected in zip(*(c.encode_image_with_local(noise(c)) for c in (copy, architecture)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", SHOWN, indirect=True)
@pytest.mark.parametrize("method", ["minmax", "smoothquant", "quarot"])
def test_the_error_of_local_features_falls_as_bits_rise(architecture, quantize, noise, method):
    images = noise(architecture)
    expected = F.normalize(architecture.encode_image_with_local(images)[2], dim=-1)

    def error(bits):
        clip = quantize(architecture, method, bits, "vision", activations="dynamic")
        features, _, found = clip.encode_image_with_local(images)
        assert torch.equal(features, clip.encode_image_with_map(images)[0])
        assert found.shape == expected.shape
        return float((F.normalize(found, dim=-1) - expected).norm(dim=-1).mean())

    # Static ranges are of mixed values; of a random model's, which point all ways, they cut off those of one patch.
    assert error(Format.integers(2, 8)) > error(Format.integers(4, 8)) > 2 * error(Format.integers(8, 8)) > 0


def test_static_ranges_hold_the_local_features_of_a_trained_model(tiny, quantize):
    train, test = (builtin.digits(part).first_evenly(64) for part in ("train", "test"))
    images = next(iter(batches(test, tiny.preprocess)))
    expected = F.normalize(tiny.encode_image_with_local(images)[2], dim=-1)
    data = Calibration.split(train, ("two", "seven"), ("{}",))
    clip = quantize(tiny, "minmax", Format.integers(8, 8), "vision", data=data)
    found = F.normalize(clip.encode_image_with_local(images)[2], dim=-1)
    assert float((found - expected).norm(dim=-1).mean()) < 0.04


@pytest.mark.parametrize("quantizer", ["torchao", "bitsandbytes"])
def test_kernels_of_other_packages_give_local_features(tiny, quantize, noise, quantizer):
    pytest.importorskip(quantizer, reason=f"the extra pytest-qreliab[{quantizer}] is not installed")
    images = noise(tiny)
    expected = tiny.encode_image_with_local(images)[2]
    found = quantize(tiny, quantizer, Format.integers(4)).encode_image_with_local(images)[2]
    assert found.shape == expected.shape
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.5


def test_onnx_shows_no_local_features(architecture_of, quantize, noise, exported_once):
    tiny = architecture_of("vit")
    pytest.importorskip("onnxruntime", reason="the extra pytest-qreliab[onnxruntime] is not installed")
    clip = quantize(tiny, "onnxruntime", Format.integers(8, 8))
    features, patch_map, found = clip.encode_image_with_local(noise(tiny))
    assert torch.equal(features, clip.encode_image(noise(tiny)))
    assert patch_map is not None
    assert found is None


def test_coverage_says_the_same_of_a_clip_that_was_asked_for_local_features(architecture_of, quantize, noise):
    clip = quantize(architecture_of("vit"), "minmax", Format.integers(4, 8))
    before = coverage.measure(architecture_of("vit"), clip, Format.integers(4, 8), "both")
    clip.encode_image_with_local(noise(clip))
    assert coverage.measure(architecture_of("vit"), clip, Format.integers(4, 8), "both") == before
