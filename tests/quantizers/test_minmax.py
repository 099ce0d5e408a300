import open_clip
import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab import quantizers
from pytest_qreliab.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.embedded import ByteTokenizer
from pytest_qreliab.quantizers import coverage, fake, minmax
from pytest_qreliab.quantizers.calibration import Calibration

PROMPTS = ["a handwritten two.", "the digit seven", "9"]


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def calibration(images):
    return Calibration(lambda clip: [images[:3], images[3:]], [PROMPTS[:2], PROMPTS[2:]])


def error(clip: Clip, other: Clip, images: torch.Tensor) -> tuple[float, float]:
    """Largest distance of unit image and text features."""
    return tuple(
        float((F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).norm(dim=-1).max())
        for a, b in (
            (clip.encode_image(images), other.encode_image(images)),
            (clip.encode_text(PROMPTS), other.encode_text(PROMPTS)),
        )
    )


@pytest.mark.parametrize("activations", [None, 8])
def test_error_falls_as_bits_rise_and_is_small_at_eight(tiny, images, calibration, activations):
    errors = [
        error(minmax.quantize(tiny, Bits(bits, activations), "both", calibration), tiny, images)
        for bits in (2, 4, 6, 8)
    ]
    for of_tower in zip(*errors, strict=True):
        assert list(of_tower) == sorted(of_tower, reverse=True)
        assert of_tower[-1] < 0.05


def test_activation_bits_matter_by_themselves(tiny, images, calibration):
    few, many = (minmax.quantize(tiny, Bits(8, bits), "both", calibration) for bits in (3, 8))
    assert error(few, tiny, images)[0] > 4 * error(many, tiny, images)[0]


@pytest.mark.parametrize("bits", [Bits(3), Bits(3, 8)])
def test_scope_leaves_the_other_tower_bit_for_bit(tiny, images, calibration, bits):
    vision = minmax.quantize(tiny, bits, "vision", calibration)
    assert torch.equal(vision.encode_text(PROMPTS), tiny.encode_text(PROMPTS))
    text = minmax.quantize(tiny, bits, "text", calibration)
    assert torch.equal(text.encode_image(images), tiny.encode_image(images))


def test_the_original_is_not_touched(tiny, calibration):
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    minmax.quantize(tiny, Bits(2, 2), "both", calibration)
    assert all(torch.equal(value, before[name]) for name, value in tiny.module.state_dict().items())


def test_it_says_the_same_twice(tiny, images, calibration):
    first, second = (minmax.quantize(tiny, Bits(4, 8), "both", calibration) for _ in range(2))
    assert torch.equal(first.encode_image(images), second.encode_image(images))


def test_activation_ranges_are_the_largest_seen_over_all_batches(tiny, images):
    clip, layers = fake.prepare(tiny, "both")
    parts = fake.input_ranges(
        clip, layers, "both", Calibration(lambda c: [images[:3], images[3:]], [[p] for p in PROMPTS])
    )
    whole = fake.input_ranges(clip, layers, "both", Calibration(lambda c: [images], [PROMPTS]))
    assert parts.keys() == whole.keys() == layers.keys()
    assert all(torch.allclose(parts[name], whole[name], rtol=1e-4) for name in layers)
    assert whole["visual.conv1"] == images.abs().max()


def test_activations_without_calibration_are_refused(tiny):
    with pytest.raises(ValueError, match="needs calibration data"):
        minmax.quantize(tiny, Bits(4, 8), "both", None)


def test_bare_bits_mean_eight_bit_activations():
    quantizer = quantizers.get("minmax")
    assert quantizer.bits(4) == Bits(4, 8)
    assert quantizer.bits(Bits(4)) == Bits(4)
    with pytest.raises(InputError, match="did you mean 'minmax'"):
        quantizers.get("min-max")


# Coverage


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
@pytest.mark.parametrize("bits", [Bits(8), Bits(2), Bits(4, 8)])
def test_minmax_covers_every_matrix(tiny, calibration, scope, bits):
    quantized = minmax.quantize(tiny, bits, scope, calibration)
    found = coverage.measure(tiny, quantized, bits, scope)
    assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())
    quantized_names = [n for n, p in quantized.module.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    total = sum(quantized.module.get_parameter(n).numel() for n in quantized_names if fake.in_scope(n, scope))
    assert found.total_weights == total


def test_a_quantizer_that_swaps_linears_only_is_found_out(tiny):
    """What most libraries do to open_clip: the packed projections stay in full precision, unnoticed."""
    naive = tiny.copy()
    for module in naive.module.modules():
        if isinstance(module, torch.nn.Linear):
            minmax.round_weight(module, 4)
            module.register_forward_pre_hook(fake.InputQuantizer(torch.tensor(0.1), 8))
    weights = coverage.measure(tiny, naive, Bits(4), "both")
    assert 0.5 < weights.weights < 0.8
    assert "visual.transformer.resblocks.0.attn.in_proj_weight" in weights.missing
    assert "visual.conv1.weight" in weights.missing
    # out_proj's weight is rounded, but its forward is never called: its input is not.
    both = coverage.measure(tiny, naive, Bits(4, 8), "both")
    assert both.weights < weights.weights
    assert "visual.transformer.resblocks.0.attn.out_proj.weight" in both.missing
    with pytest.raises(InputError, match=r"covers .*left in full precision: .*in_proj_weight"):
        weights.require(1.0, "naive w4")


def test_an_unquantized_model_covers_nothing(tiny):
    found = coverage.measure(tiny, tiny.copy(), Bits(8), "both")
    assert (found.weights, found.flops) == (0.0, 0.0)


# Architectures, in small


def small(vision: dict, text: dict | None = None, kind=open_clip.CLIP, **more) -> Clip:
    torch.manual_seed(0)
    text = {"context_length": 24, "vocab_size": 258, "width": 32, "heads": 2, "layers": 1} | (text or {})
    module = kind(embed_dim=16, vision_cfg=vision, text_cfg=text, **more).eval().requires_grad_(False)
    transform = open_clip.image_transform(module.visual.image_size, is_train=False)
    return Clip("small", module, transform, ByteTokenizer(24))


VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
ARCHITECTURES = {
    "vit": lambda: small(VIT),
    "vit-average-pool": lambda: small(VIT | {"pool_type": "avg", "no_ln_pre": True}),
    "vit-attention-pool": lambda: small(
        VIT | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
    ),
    "resnet": lambda: small({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}),
    "custom-text": lambda: small(VIT, {"proj_bias": True}, open_clip.CustomTextCLIP),
    "siglip-like": lambda: small(
        VIT, {"no_causal_mask": True, "pool_type": "last"}, open_clip.CustomTextCLIP, init_logit_bias=-10.0
    ),
    "timm": lambda: small(
        {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_covered_and_near_full_precision_at_eight_bits(name):
    clip = ARCHITECTURES[name]()
    size = clip.module.visual.image_size
    side = size[0] if isinstance(size, tuple) else size
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    data = Calibration(lambda c: [images], [PROMPTS])
    features, patch_map = clip.encode_image_with_map(images)
    torch.testing.assert_close(features, clip.encode_image(images), rtol=1e-4, atol=1e-5)
    assert patch_map is not None
    assert patch_map.ndim == 4
    errors = []
    for bits in (Bits(3), Bits(8), Bits(8, 8)):
        quantized = minmax.quantize(clip, bits, "both", data)
        found = coverage.measure(clip, quantized, bits, "both")
        assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())
        errors.append(max(error(quantized, clip, images)))
    assert errors[1] < 0.05
    assert errors[2] < 0.1
    assert errors[0] > 4 * errors[1]
