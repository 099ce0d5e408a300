"""The layers that quantizers work on, and their weights side by side."""

import re

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import Format
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


def test_a_weight_that_modules_share_is_the_layers_own_afterwards(tiny):
    """An embedding that shares it is not to be rounded, and two layers have a rounding each."""
    shared = tiny.copy()
    blocks = shared.module.transformer.resblocks
    blocks[1].mlp.c_fc.weight = blocks[0].mlp.c_fc.weight
    blocks[0].words = nn.Embedding(*blocks[0].mlp.c_proj.weight.shape)
    blocks[0].words.weight = blocks[0].mlp.c_proj.weight
    clip, layers = engine_layers.unpack_layers(shared, "both")
    sharing = [layers[f"transformer.resblocks.{name}"].weight for name in ("0.mlp.c_fc", "1.mlp.c_fc", "0.mlp.c_proj")]
    sharing.append(clip.module.transformer.resblocks[0].words.weight)
    assert len({weight.data_ptr() for weight in sharing}) == 4
    assert torch.equal(sharing[0], sharing[1])
    assert torch.equal(sharing[2], sharing[3])
    assert blocks[1].mlp.c_fc.weight is blocks[0].mlp.c_fc.weight


def test_a_library_without_convolutions_gets_the_linears(tiny, ask):
    clip, layers, request = engine_layers.prepare_layers(tiny, ask(Format.integers(4)))
    linears = engine_layers.linears(clip, layers, request, "it")
    assert layers.keys() - linears.keys() == {"visual.conv1"}
    with pytest.raises(InputError, match="it quantizes Linears alone, and there is none"):
        engine_layers.linears(clip, {"visual.conv1": layers["visual.conv1"]}, request, "it")
    clip, layers, request = engine_layers.prepare_layers(tiny, ask(Format.integers(4), layers={"visual.conv1": "w8"}))
    with pytest.raises(InputError, match=r"it quantizes Linears alone, and layers gives a format to visual.conv1"):
        engine_layers.linears(clip, layers, request, "it")


def test_the_first_pattern_that_fits_gives_a_layer_its_format(tiny, ask):
    patterns = {"visual.*.0.attn.out_proj": "w8", "*.attn.out_proj": "keep", "visual.conv1": "w3a4", "*.q_proj": "fp8"}
    _, every = engine_layers.unpack_layers(tiny, "both")
    _, layers, request = engine_layers.prepare_layers(tiny, ask(Format.of("w4a8"), layers=patterns))
    first = "visual.transformer.resblocks.0.attn.out_proj"
    assert every.keys() - layers.keys() == {name for name in every if name.endswith("out_proj")} - {first}
    assert {name: str(request.format_of(name)) for name in (first, "visual.conv1", "visual.proj")} == {
        first: "w8a8",
        "visual.conv1": "w3a4",
        "visual.proj": "w4a8",
    }
    assert str(request.format_of("transformer.resblocks.1.attn.q_proj")) == "fp8"
    assert request.weight_scheme(first).number.bits == 8
    assert request.input_scheme("visual.conv1").number.bits == 4


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
def test_the_ends_are_what_reads_pixels_and_what_writes_features(architecture, ask, scope):
    patterns = {"@first": "w8", "@last": "w8"}
    _, _, request = engine_layers.prepare_layers(architecture, ask(Format.of("w2a8"), scope, layers=patterns))
    clip, every = engine_layers.unpack_layers(architecture, scope)
    ends = {name for name in every if str(request.format_of(name)) == "w8a8"}
    called = []
    for name, layer in every.items():
        layer.register_forward_hook(lambda layer, args, out, name=name: called.append((name, args[0])))
    images, found = engine_layers.probe_images(clip), set()
    if scope != "text":
        clip.encode_image(images)
        assert torch.equal(called[0][1], images)
        found |= {called[0][0], called[-1][0]}
    if scope != "vision":
        clip.encode_text(["a photo of two old red cars"])
        found.add(called[-1][0])
    assert ends == found


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"visual.conv2": "w8"}, "no layer in scope 'both' is called 'visual.conv2'; did you mean 'visual.conv1'"),
        ({"*": "keep"}, "layers keeps every layer in full precision: nothing is left to quantize"),
    ],
)
def test_patterns_that_leave_nothing_or_fit_nothing_are_refused(tiny, ask, patterns, message):
    with pytest.raises(InputError, match="tiny-digits: .*" + re.escape(message)):
        engine_layers.prepare_layers(tiny, ask(Format.integers(4), layers=patterns))


def test_a_pair_holds_the_weight_as_it_acts_on_an_untransformed_input(tiny, quantize):
    _, pairs = engine_layers.weight_pairs(tiny, quantize(tiny, "quarot", Format.integers(8)), "vision")
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
