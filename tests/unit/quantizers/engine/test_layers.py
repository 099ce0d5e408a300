import pytest
import torch
from torch import nn

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.quantizers.engine import input_quantizer, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.grid import Grid


def test_input_quantizer_rounds_what_the_layer_reads():
    layer = nn.Linear(3, 3, bias=False)
    layer.weight = nn.Parameter(torch.eye(3))
    hook = input_quantizer.input_quantizer(layer)
    assert input_quantizer.input_quantizer(layer) is hook
    hook.round = Grid(torch.tensor(0.25), -7, 7).round
    x = torch.tensor([[0.3, -9.0, 0.1]])
    assert layer(x).tolist() == [[0.25, -1.75, 0.0]]
    assert hook.called
    torch.testing.assert_close(x, torch.tensor([[0.3, -9.0, 0.1]]))
    expected = torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -7, 7)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_dynamic_ranges_are_each_tokens_or_each_images_own(symmetric):
    small, large = torch.randn(1, 1, 16), 100 * torch.randn(1, 1, 16)
    dynamic = input_quantizer.Dynamic(4, symmetric)
    together = dynamic(torch.cat([small, large], dim=1))
    torch.testing.assert_close(together[:, :1], dynamic(small))
    torch.testing.assert_close(together[:, 1:], dynamic(large))
    maps = torch.cat([torch.randn(1, 3, 4, 4), 100 * torch.randn(1, 3, 4, 4)])
    torch.testing.assert_close(dynamic(maps)[:1], dynamic(maps[:1]))
    assert all(len(image.unique()) <= 16 for image in dynamic(maps))


def test_ranges_are_those_of_all_calibration_images_and_prompts(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    seen = observers.observe(clip, layers, ask(Bits(4, 8)), observers.ValueObserver)
    assert seen.keys() == layers.keys()
    data = ask(Bits(4, 8)).calibration
    images = torch.cat(list(data.batches(clip, 128)))
    assert len(images) == len(data.images) == 12  # every fourth of the sixteen is held out
    assert seen["visual.conv1"].row().max() == images.max()
    assert seen["visual.conv1"].row().min() == images.min()
    one = observers.observe(clip, layers, ask(Bits(4, 8), images=1), observers.ValueObserver)
    assert one["visual.conv1"].row().max() == next(iter(data.batches(clip, 1))).max()


def test_layers_are_grouped_by_what_they_read_and_the_norm_behind_it_is_known(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    found = observers.readers(clip, layers, ask(Bits(4)))
    assert sorted(name for reader in found for name in reader.names) == sorted(layers)
    block = "visual.transformer.resblocks.0"
    by_first = {reader.names[0]: reader for reader in found}
    qkv = by_first[f"{block}.attn.q_proj"]
    assert qkv.names == tuple(f"{block}.attn.{which}_proj" for which in "qkv")
    assert qkv.norm is clip.module.get_submodule(f"{block}.ln_1")
    assert by_first[f"{block}.mlp.c_fc"].norm is clip.module.get_submodule(f"{block}.ln_2")
    assert by_first[f"{block}.mlp.c_proj"].norm is None
    assert by_first["visual.conv1"].norm is None
