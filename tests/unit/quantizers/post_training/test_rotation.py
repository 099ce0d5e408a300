import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.post_training import procedure, rotation


def test_rotation_changes_nothing_of_full_size_and_hides_an_outlier_channel(tiny, images, quantize, error):
    """An outlier in one channel costs minmax its activation range, and a rotation next to nothing."""
    spiked = tiny.copy()
    norm = spiked.module.visual.transformer.resblocks[0].ln_1
    norm.weight[3] *= 300  # undone in the weights that read it, so that the model is the same
    for part in spiked.module.visual.transformer.resblocks[0].attn.in_proj_weight.unbind():
        part[3] /= 300
    norm.bias[3] *= 300
    assert max(error(spiked, tiny, images)) < 1e-3
    plain = error(quantize(spiked, "minmax", Format.integers(8, 8)), tiny, images)[0]
    for method in ("smoothquant", "outlier-suppression", "quarot"):
        assert error(quantize(spiked, method, Format.integers(8, 8)), tiny, images)[0] < plain / 2, method


def turned_and_rounded_to_nearest(clip, request):
    return procedure.quantize(clip, request, transforms=rotation.rotate)


def test_turned_weights_are_rounded_with_compensation_on_grids_of_their_own(tiny, ask, quantize):
    request = ask(Format.integers(3), "vision", "quarot")
    turned, layers = engine_layers.unpack_layers(tiny, "vision")
    for name, by in rotation.rotate(turned, layers, request).items():
        input_quantizer.transform_input(layers[name], by)
    quarot = dict(quantize(tiny, "quarot", request.bits, "vision").module.named_modules())
    moved = 0
    for name, layer in layers.items():
        scheme = request.weight_scheme(name)
        laid = scheme.fit_values(layer.weight.flatten(1), grid.minmax)
        weight = quarot[name].weight.flatten(1)
        torch.testing.assert_close(laid.round(weight.clone()), weight)
        moved += int((weight - laid.round(layer.weight.flatten(1))).abs().gt(laid.scale / 2).sum())
    assert moved > 1000


def test_turned_weights_err_less_with_compensation_than_to_the_nearest(tiny, images, ask, quantize, error):
    for bits in (Format.integers(3), Format.integers(4, 4)):
        request = ask(bits, "vision", "quarot")
        nearest = error(tiny, turned_and_rounded_to_nearest(tiny, request), images)[0]
        assert error(tiny, quantize(tiny, "quarot", bits, "vision"), images)[0] < nearest, bits


@pytest.mark.parametrize(("bits", "share"), [(3, 0.9), (4, 0.9), (5, 1.0), (8, 1.0)])
def test_each_token_is_rounded_over_its_own_range_of_which_few_levels_take_nine_tenths(tiny, quantize, bits, share):
    quarot = quantize(tiny, "quarot", Format.integers(8, bits), "text")
    hook = input_quantizer.find_input_quantizer(quarot.module.transformer.resblocks[0].mlp.c_fc)
    assert isinstance(hook.round, input_quantizer.DynamicQuantizer)
    assert hook.round.share == share
    x = torch.randn(5, 32) * torch.arange(1, 6)[:, None]
    low, high = hook.round.scheme.levels()
    scale = share * x.abs().amax(1, keepdim=True) / ((high - low) / 2)
    expected = (x / scale).round().clamp(low, high) * scale
    torch.testing.assert_close(hook.round(x), expected)


def test_static_ranges_and_floats_are_rounded_as_by_minmax(tiny, quantize):
    static = quantize(tiny, "quarot", Format.integers(8, 4), "text", activations="static")
    hook = input_quantizer.find_input_quantizer(static.module.transformer.resblocks[0].mlp.c_fc)
    assert isinstance(hook.round.__self__, grid.Grid)
    floats = quantize(tiny, "quarot", Format.of("fp8"), "text")
    hook = input_quantizer.find_input_quantizer(floats.module.transformer.resblocks[0].mlp.c_fc)
    assert hook.round.share == 1
