"""The layers that quantizers work on, and their weights side by side."""

import pytest
import torch
from torch import nn

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import layers as engine_layers


def test_every_layer_in_scope_is_named_and_the_model_is_left_alone(tiny):
    before = dict(tiny.module.named_modules())
    clip, layers = engine_layers.unpack_layers(tiny, "vision")
    assert all(name.startswith("visual.") for name in layers)
    assert all(clip.module.get_submodule(name) is layer for name, layer in layers.items())
    assert dict(tiny.module.named_modules()) == before


def test_a_weight_that_is_computed_from_others_is_refused_and_can_be_folded(tiny):
    clip = tiny.copy()
    layer = clip.module.transformer.resblocks[0].mlp.c_fc
    nn.utils.parametrizations.weight_norm(layer.requires_grad_(True))
    with pytest.raises(InputError, match=r"tiny-digits: the weight of transformer.resblocks.0.mlp.c_fc is computed"):
        engine_layers.unpack_layers(clip, "text")
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    engine_layers.unpack_layers(clip, "text")


def test_a_library_without_convolutions_gets_the_linears(tiny):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    linears = engine_layers.linears(clip, layers, "it")
    assert layers.keys() - linears.keys() == {"visual.conv1"}
    with pytest.raises(InputError, match="it quantizes Linears alone"):
        engine_layers.linears(clip, {"visual.conv1": layers["visual.conv1"]}, "it")


def test_a_pair_holds_the_weight_as_it_acts_on_an_untransformed_input(tiny, quantize):
    _, pairs = engine_layers.weight_pairs(tiny, quantize(tiny, "quarot", Bits(8)), "vision")
    assert all(pair.full.shape == pair.quantized.shape == (len(pair.full), pair.full[0].numel()) for pair in pairs)
    for pair in pairs:
        error = float((pair.quantized - pair.full).norm() / pair.full.norm())
        assert 0 < error < 0.02, pair.name


def test_a_weight_that_is_not_dense_has_no_pair(tiny):
    clip = tiny.copy()
    clip.module.visual.set_submodule("conv1", nn.Identity())
    with pytest.raises(InputError, match=r"its layer visual\.conv1 has no dense weight"):
        engine_layers.weight_pairs(tiny, clip, "vision")


def test_the_images_that_are_passed_through_are_unlike_each_other(tiny):
    images = engine_layers.probe_images(tiny)
    assert images.shape == (4, 3, 32, 32)
    assert len({float(image.mean()) for image in images}) == 4
    assert torch.equal(images, engine_layers.probe_images(tiny))


@pytest.mark.parametrize(("scope", "images", "prompts"), [("vision", 4, 0), ("text", 0, 4), ("both", 4, 4)])
def test_each_image_and_each_prompt_is_passed_by_itself(tiny, scope, images, prompts):
    seen = []
    clip = tiny.copy()
    clip.module.visual.register_forward_pre_hook(lambda tower, args: seen.append(len(args[0])))
    clip.module.token_embedding.register_forward_pre_hook(lambda layer, args: seen.append(len(args[0])))
    engine_layers.encode_probes(clip, scope)
    assert seen == [1] * (images + prompts)
