"""Signs times a mean magnitude, against the closed form and by brute force."""

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.inspection import coverage


def test_no_other_scale_of_the_signs_is_closer_to_a_channel(tiny, quantize):
    binary = quantize(tiny, "binary", Format.of("w1"))
    for pair in engine_layers.weight_pairs(tiny, binary, "both")[1]:
        assert bool((pair.quantized * pair.full >= 0).all())
        magnitude = pair.quantized.abs().amax(1, keepdim=True)
        torch.testing.assert_close(pair.quantized.abs(), magnitude.expand_as(pair.full))
        error = (pair.quantized - pair.full).square().sum(1)
        for factor in (0.97, 1.03):
            assert bool(((pair.quantized * factor - pair.full).square().sum(1) >= error).all())


def test_a_product_of_signs_is_that_of_xnor_net(tiny, images, quantize):
    """Signs of inputs and of weights multiply to whole numbers, times the two mean magnitudes."""
    _, layers = engine_layers.unpack_layers(tiny, "vision")
    binary = quantize(tiny, "binary", Format.of("w1a1"), "vision")
    name = "visual.transformer.resblocks.0.mlp.c_fc"
    reads, writes = [], []
    layer = binary.module.get_submodule(name)
    layer.register_forward_pre_hook(lambda layer, args: reads.append(args[0].clone()), prepend=True)
    layer.register_forward_hook(lambda layer, args, out: writes.append(out))
    binary.encode_image(images)
    weight, x = layers[name].weight, reads[0]
    signs = torch.where(x < 0, -1.0, 1.0) @ torch.where(weight < 0, -1.0, 1.0).T
    expected = signs * x.abs().mean(-1, keepdim=True) * weight.abs().mean(1) + layers[name].bias
    torch.testing.assert_close(writes[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "form"),
    [("vit", "w1"), ("vit", "w1a1"), ("resnet", "w1a1"), pytest.param("convnext", "w1", marks=pytest.mark.slow)],
    indirect=["architecture"],
)
def test_every_layer_is_covered_at_one_bit_a_weight(architecture, quantize, form):
    bits = Format.of(form)
    binary = quantize(architecture, "binary", bits)
    found = coverage.measure(architecture, binary, bits, "both")
    assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())
    assert found.mean_bits == 1
    plain = quantize(architecture, "minmax", Format.of("w8"))
    eight = coverage.measure(architecture, plain, Format.of("w8"), "both")
    assert eight.size - found.size == pytest.approx(eight.total_weights * 7 / 8, abs=1)


def test_layers_may_keep_more_bits(tiny, quantize):
    ends = {"visual.conv1": "w8a8", "*.c_proj": "keep"}
    binary = quantize(tiny, "binary", Format.of("w1a1"), "vision", layers=ends)
    pairs = {pair.name: pair for pair in engine_layers.weight_pairs(tiny, binary, "vision")[1]}
    first = pairs["visual.conv1"]
    step = first.full.abs().amax(1, keepdim=True) / 127
    assert bool(((first.quantized - first.full).abs() <= step).all())
    kept = pairs["visual.transformer.resblocks.0.mlp.c_proj"]
    assert torch.equal(kept.full, kept.quantized)


@pytest.mark.parametrize(("quantizer", "form"), [("binary", "w2"), ("binary", "w1a8"), ("minmax", "w1")])
def test_one_bit_is_for_binary_and_binary_for_one_bit(quantizer, form):
    with pytest.raises(InputError, match="'binary'"):
        Catalog().recipe(quantizer).bits(Format.of(form), "both")


def test_a_bare_one_is_weights_only():
    assert str(Catalog().recipe("binary").bits(1, "both")) == "w1"
