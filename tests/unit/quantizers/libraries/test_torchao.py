import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine import packed_weights
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries import torchao
from pytest_qreliab.quantizers.parameters import Parameters, TorchAo
from pytest_qreliab.quantizers.request import Request

pytest.importorskip("torchao", reason="the extra pytest-qreliab[torchao] is not installed")

FEW = pytest.mark.parametrize("architecture", ["vit", "resnet", "convnext-atto", "siglip-like", "coca"], indirect=True)


def quantized(clip, bits, scope="both", **parameters):
    return torchao.quantize(clip, Request(bits=bits, scope=scope, parameters=TorchAo(**parameters)))


@FEW
@pytest.mark.parametrize("activations", [None, 8])
def test_error_falls_as_bits_rise_and_is_small_at_eight(architecture, error, activations):
    errors = [error(architecture, quantized(architecture, Format.integers(bits, activations))) for bits in (2, 4, 8)]
    for of_tower in zip(*errors, strict=True):
        assert list(of_tower) == sorted(of_tower, reverse=True)
        assert of_tower[-1] < 0.06


@FEW
@pytest.mark.parametrize("bits", [Format.integers(8), Format.integers(3), Format.integers(8, 8), Format.integers(4, 8)])
def test_every_matrix_is_covered_and_no_convolution(architecture, bits):
    found = coverage.measure(architecture, quantized(architecture, bits), bits, "both")
    assert found.matrices == 1.0
    assert found.weights < 1.0
    modules = dict(architecture.module.named_modules())
    assert all(isinstance(modules[name.removesuffix(".weight")], torch.nn.Conv2d) for name in found.missing)
    found.require(1.0, "torchao", convolutions=False)
    with pytest.raises(
        InputError,
        match=r"covers .* not or not fully quantized: visual\..*; .* does not lie on grids of",
    ):
        found.require(1.0, "torchao")


def test_more_is_not_covered_than_was_rounded(tiny):
    four = quantized(tiny, Format.integers(4))
    assert coverage.measure(tiny, four, Format.integers(8), "both").matrices == 1.0
    assert coverage.measure(tiny, four, Format.integers(3), "both").weights == 0.0
    assert coverage.measure(tiny, four, Format.integers(4, 8), "both").weights == 0.0


@pytest.mark.parametrize(
    ("bits", "levels", "rounds_input"),
    [
        (Format.integers(8), 256, False),
        (Format.integers(5), 32, False),
        (Format.integers(8, 8), 256, True),
        (Format.integers(4, 8), 16, True),
    ],
)
def test_weights_are_stored_as_integers(tiny, bits, levels, rounds_input):
    clip = quantized(tiny, bits)
    linears = [module for module in clip.module.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 6 * 6 + 2  # of six blocks and the final projections
    for linear in linears:
        codes = linear.weight.qdata
        assert codes.dtype == torch.int8
        assert int(codes.max()) - int(codes.min()) < levels
        stored = packed_weights.layer_format(linear)
        assert (stored.bits, stored.activations is not None) == (bits.weights.bits, rounds_input)


def test_groups_have_scales_of_their_own(tiny):
    wide, narrow = (
        clip.module.visual.proj.weight
        for clip in (quantized(tiny, Format.integers(3)), quantized(tiny, Format.integers(3), group_size=16))
    )
    assert narrow.scale.numel() == 4 * wide.scale.numel()
    full = tiny.module.visual.proj.T
    assert (narrow.dequantize() - full).norm() < 0.9 * (wide.dequantize() - full).norm()
    with pytest.raises(InputError, match=r"group_size 48 does not divide the 64 inputs of visual\.\S+ in tiny-digits"):
        quantized(tiny, Format.integers(4), group_size=48)


def test_scope_leaves_the_other_tower_and_the_original_alone(tiny, noise, prompts):
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    vision, text = (quantized(tiny, Format.integers(4, 8), scope) for scope in ("vision", "text"))
    assert torch.equal(vision.encode_text(prompts), tiny.encode_text(prompts))
    assert torch.equal(text.encode_image(noise(tiny)), tiny.encode_image(noise(tiny)))
    assert coverage.measure(tiny, text, Format.integers(4, 8), "text").weights == 1.0
    assert all(torch.equal(value, before[name]) for name, value in tiny.module.state_dict().items())


def test_float8(tiny, error):
    clip = torchao.quantize_float8(tiny, Request(bits=Format.integers(8), scope="both", parameters=Parameters()))
    assert clip.module.visual.proj.weight.qdata.dtype == torch.float8_e4m3fn
    assert coverage.measure(tiny, clip, Format.integers(8), "both").matrices == 1.0
    assert max(error(tiny, clip)) < 0.1
    if tiny.device.type == "cpu":
        with pytest.raises(
            InputError, match=r"w8a8 needs a GPU that computes in float8 .* the device is cpu; write fp8w"
        ):
            torchao.quantize_float8(tiny, Request(bits=Format.integers(8, 8), scope="both", parameters=Parameters()))


def test_other_bits_are_refused(tiny):
    with pytest.raises(InputError, match="torchao has no w4a4: write w2 to w8, or w2a8 to w8a8"):
        quantized(tiny, Format.integers(4, 4))
    with pytest.raises(InputError, match="torchao-float8 has no w4: write fp8w"):
        torchao.quantize_float8(tiny, Request(bits=Format.integers(4), scope="both", parameters=Parameters()))


def test_swapping_linears_without_unpacking_is_found_out(tiny):
    """What torchao does to open_clip by itself: the packed projections stay in full precision."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    naive = tiny.copy()
    quantize_(naive.module, Int8WeightOnlyConfig(set_inductor_config=False))
    found = coverage.measure(tiny, naive, Format.integers(8), "both")
    assert 0.5 < found.matrices < 0.8
    assert "visual.transformer.resblocks.0.attn.in_proj_weight" in found.missing


def test_a_layer_that_is_never_called_covers_nothing(tiny):
    clip = quantized(tiny, Format.integers(8))
    clip.module.unused = torch.nn.Linear(64, 64)
    clip.module.unused.weight = clip.module.visual.proj.weight
    clip.module.visual.proj.weight = torch.nn.Parameter(tiny.module.visual.proj.T, requires_grad=False)
    found = coverage.measure(tiny, clip, Format.integers(8), "both")
    assert {"visual.proj.weight", "unused.weight"} <= set(found.missing)


def test_layers_have_formats_of_their_own_or_are_kept(tiny):
    patterns = {"*.out_proj": "keep", "*.q_proj": "w8a8"}
    clip = quantized(tiny, Format.of("w4"), layers=patterns)
    asked = Request(bits=Format.of("w4"), scope="both", parameters=TorchAo(layers=patterns))
    formats = engine_layers.find_own_formats(tiny, asked)
    found = coverage.measure(tiny, clip, Format.of("w4"), "both", "channel", formats)
    kept = {name for name in found.missing if name != "visual.conv1.weight"}
    assert kept == {f"{name}.weight" for name in formats if name.endswith("out_proj")}
    assert found.matrices == 1.0
    ignored = coverage.measure(tiny, quantized(tiny, Format.of("w4")), Format.of("w4"), "both", "channel", formats)
    assert ignored.matrices < 1.0
    with pytest.raises(InputError, match=r"it declares to quantize 100\.0%"):
        ignored.require(1.0, "it", convolutions=False)
    eighth = packed_weights.layer_format(clip.module.transformer.resblocks[0].attn.q_proj)
    assert (eighth.bits, eighth.activations) == (8, 8)
    with pytest.raises(
        InputError, match=r"torchao quantizes Linears alone, and layers gives a format to visual\.conv1"
    ):
        quantized(tiny, Format.of("w4"), layers={"visual.conv1": "w8"})
