import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import FLOATS, integer
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine.grid import Grid, Scheme
from pytest_qreliab.quantizers.engine.input_quantizer import BlockQuantizer, DynamicQuantizer


def scheme_of(name, **more) -> Scheme:
    number = FLOATS.get(name) or integer(int(name[-1]))
    return Scheme(number=number, granularity=number.block or "tensor", **more)


def test_input_quantizer_rounds_what_the_layer_reads():
    layer = nn.Linear(3, 3, bias=False)
    layer.weight = nn.Parameter(torch.eye(3))
    hook = input_quantizer.ensure_input_quantizer(layer)
    assert input_quantizer.ensure_input_quantizer(layer) is hook
    hook.round = Grid(torch.tensor(0.25), -8, 7, integer(4)).round
    x = torch.tensor([[0.3, -9.0, 0.1]])
    assert layer(x).tolist() == [[0.25, -2.0, 0.0]]
    assert hook.called
    torch.testing.assert_close(x, torch.tensor([[0.3, -9.0, 0.1]]))
    expected = torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -8, 7)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "scheme", [scheme_of("int4"), scheme_of("int4", symmetric=False), scheme_of("fp8")], ids=["symmetric", "not", "fp8"]
)
def test_dynamic_ranges_are_each_tokens_or_each_images_own(scheme):
    small, large = torch.randn(1, 1, 16), 100 * torch.randn(1, 1, 16)
    dynamic = DynamicQuantizer(scheme)
    together = dynamic(torch.cat([small, large], dim=1))
    torch.testing.assert_close(together[:, :1], dynamic(small))
    torch.testing.assert_close(together[:, 1:], dynamic(large))
    maps = torch.cat([torch.randn(1, 3, 4, 4), 100 * torch.randn(1, 3, 4, 4)])
    torch.testing.assert_close(dynamic(maps)[:1], dynamic(maps[:1]))
    assert all(len(image.unique()) <= 2**scheme.number.bits for image in dynamic(maps))


@pytest.mark.parametrize("name", ["mxfp8", "mxfp6", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("shape", [(2, 7, 64), (2, 7, 40), (5, 3), (2, 40, 4, 4), (2, 3, 4, 4)])
def test_blocks_of_channels_are_rounded_by_themselves(name, shape):
    """Each token, place of a map and block of channels becomes what it becomes alone."""
    scheme, tensor_scale = scheme_of(name), torch.tensor(0.01) if name == "nvfp4" else None
    x = torch.randn(shape) * torch.logspace(-2, 2, shape[1]).view(-1, *(1,) * (len(shape) - 2))
    rounded = BlockQuantizer(scheme, tensor_scale)(x)
    assert rounded.shape == x.shape
    channels = 1 if len(shape) == 4 else -1
    expected = torch.empty_like(x)
    for at in range(0, shape[channels], scheme.number.block):
        values, part = (tensor.movedim(channels, -1)[..., at : at + scheme.number.block] for tensor in (x, expected))
        laid = scheme.fit_values(values.flatten(0, -2), grid.minmax, tensor_scale)
        part.copy_(laid.round(values.flatten(0, -2)).view(values.shape))
    assert torch.equal(rounded, expected)


STATIC = ["int8", "int3", "fp8", "fp8e5m2", "nvfp4"]
OF_THEIR_OWN = ["fp16", "bf16", "mxfp8", "mxfp8e5m2", "mxfp6", "mxfp6e3m2", "mxfp4"]


@pytest.mark.parametrize("name", STATIC + OF_THEIR_OWN)
def test_what_a_token_becomes_does_not_depend_on_the_tokens_beside_it(name):
    scheme, layer = scheme_of(name), nn.Linear(48, 4)
    found = [input_quantizer.without_ranges(scheme, dynamic) for dynamic in (False, True)]
    assert (found[0] is None) == (name in STATIC)
    static = input_quantizer.from_bounds(scheme, torch.tensor(-3.0), torch.tensor(2.0))
    x = torch.randn(2, 5, 48) * torch.tensor([1.0, 30.0])[:, None, None]
    for rounding in (*found, static):
        if rounding is None:
            continue
        input_quantizer.ensure_input_quantizer(layer).round = rounding
        assert input_quantizer.takes_each_token_alone(layer)
        together = rounding(x)
        alone = [[rounding(token[None, None])[0, 0] for token in image] for image in x]
        assert torch.equal(together, torch.stack([torch.stack(image) for image in alone]))


@pytest.mark.parametrize("make", [lambda: scheme_of("nvfp4"), lambda: Grid(torch.ones(4, 1), -8, 7, integer(4))])
def test_scales_over_several_tokens_are_known(make):
    made = make()
    layer = nn.Linear(16, 4)
    input_quantizer.ensure_input_quantizer(layer).round = (
        BlockQuantizer(made) if isinstance(made, Scheme) else made.round
    )
    assert not input_quantizer.takes_each_token_alone(layer)


def test_a_static_range_is_torchs_cast_to_float8():
    x = torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(0)) * 2
    for name, dtype in (("fp8", torch.float8_e4m3fn), ("fp8e5m2", torch.float8_e5m2)):
        largest = torch.finfo(dtype).max
        rounding = input_quantizer.from_bounds(scheme_of(name), torch.tensor(-3.0), torch.tensor(2.0))
        scale = torch.tensor(3.0) / largest
        expected = (x / scale).clamp(-largest, largest).to(dtype).float() * scale
        assert torch.equal(rounding(x), expected)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_is_a_cast_that_needs_no_range(name, dtype):
    x = torch.tensor([1e-9, 0.1, -70000.0, 3e38, float("nan")])
    rounded = input_quantizer.without_ranges(scheme_of(name), False)(x)
    torch.testing.assert_close(rounded, x.to(dtype).float(), rtol=0, atol=0, equal_nan=True)


def test_signs_have_the_mean_magnitude_of_their_token_or_image():
    signs = input_quantizer.SignQuantizer()
    x = torch.tensor([[[1.0, -3.0, 0.0]], [[-2.0, -2.0, 2.0]]])
    torch.testing.assert_close(signs(x), torch.tensor([[[4 / 3, -4 / 3, 4 / 3]], [[-2.0, -2.0, 2.0]]]))
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(signs(maps), maps.sign() * maps.abs().mean((1, 2, 3), keepdim=True))
    layer = nn.Linear(3, 2)
    input_quantizer.ensure_input_quantizer(layer).round = signs
    assert input_quantizer.takes_each_token_alone(layer)
