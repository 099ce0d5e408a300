"""The walk through towers, against the whole model run anew for every block."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import blocks, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers

W4 = Format.of("w4")


class Keeper:
    """An observer that keeps what it is shown."""

    def __init__(self, layer):
        self.seen = []

    def observe(self, layer, x):
        self.seen.append(x.clone())


def change(block):
    """Change the block's layers, as a quantizer does."""
    with torch.no_grad():
        for layer in block.layers.values():
            layer.weight.mul_(1.1)


def same_rows(found, wanted):
    """Whether two keepers saw the same, whatever the batches were."""
    return torch.equal(*(torch.cat([x.flatten(0, -2).T.flatten() for x in kept.seen]) for kept in (found, wanted)))


def check(clip, layers, request):
    """Compare what each layer reads in its block with what it reads while the whole changed model runs."""
    met = []
    for block in blocks.walk(clip, layers, request):
        wanted = observers.observe(clip, block.layers, request, Keeper)
        for names in block.groups:
            found = block.observe(names, Keeper)
            assert found.keys() == set(names)
            assert all(same_rows(found[name], wanted[name]) for name in names), block.name
            met += names
        change(block)
    assert len(met) == len(set(met))
    return met


def test_a_block_reads_what_the_changed_blocks_before_it_return(architecture, ask):
    clip, layers = engine_layers.unpack_layers(architecture, "both")
    met = check(clip, layers, ask(W4, images=5))
    assert set(layers) - set(met) == {name for name in layers if name.startswith("text_decoder")}


@pytest.mark.parametrize("scope", ["vision", "text"])
def test_one_tower_can_be_walked_alone(architecture_of, ask, scope):
    clip = architecture_of("vit")
    copy, layers = engine_layers.unpack_layers(clip, scope)
    assert set(check(copy, layers, ask(W4, scope))) == set(layers)


def test_smaller_batches_are_the_same_images(architecture_of, ask):
    clip, layers = engine_layers.unpack_layers(architecture_of("vit"), "vision")
    walks = [blocks.walk(clip, layers, ask(W4, "vision"), size) for size in (2, 64)]
    for small, whole in zip(*walks, strict=True):
        assert len(small.inputs) > len(whole.inputs)
        assert all(len(block.inputs) == len(block.outputs()) for block in (small, whole))
        rows = [torch.cat([args[0].flatten(0, -2) for args, _ in block.inputs]) for block in (small, whole)]
        assert rows[0].shape == rows[1].shape
        torch.testing.assert_close(rows[0].sum(0), rows[1].sum(0), rtol=1e-4, atol=1e-4)


def test_the_model_is_left_as_it_was(architecture_of, ask, noise):
    clip = architecture_of("vit-attention-pool")
    copy, layers = engine_layers.unpack_layers(clip, "both")
    for _ in blocks.walk(copy, layers, ask(W4)):
        pass
    assert not any("forward" in vars(module) for module in copy.module.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in copy.module.modules())
    pixels = noise(clip)
    torch.testing.assert_close(copy.encode_image(pixels), clip.encode_image(pixels), rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """Two towers with a trunk in common, a gate beside it, and a layer that some inputs pass by."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.pixels, self.tokens = nn.Linear(3, 8), nn.Embedding(300, 8)
        self.trunk, self.gate = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)), nn.Linear(8, 8)
        self.rare, self.last = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)), nn.Linear(8, 8)

    def encode_image(self, images):
        x = self.trunk(self.pixels(images.mean((2, 3))))
        return self.last(x * self.gate(x).sigmoid())

    def encode_text(self, tokens):
        x = self.trunk(self.tokens(tokens).mean(1))
        if len(tokens) == 1:
            x = self.rare(x)
        return x


@pytest.fixture
def shared(calibration):
    torch.manual_seed(0)
    tokenizer = lambda texts: torch.tensor([[ord(text[0]), len(text)] for text in texts])  # noqa: E731
    clip = Clip.wrap(
        Shared().eval().requires_grad_(False),
        preprocess=lambda image: torch.tensor([float(image.getpixel((0, 0))[0])] * 3).view(3, 1, 1) / 255,
        tokenizer=tokenizer,
    )
    return replace(clip, name="shared")


def test_layers_of_both_towers_come_first_with_what_both_bring(shared, ask):
    clip, layers = engine_layers.unpack_layers(shared, "both")
    request = ask(W4)
    walked = []
    for block in blocks.walk(clip, layers, request):
        walked.append(block.name)
        if block.name.startswith("trunk"):
            found, wanted = block.observe(tuple(block.layers), Keeper), observers.observe(clip, layers, request, Keeper)
            assert len(found[block.name].seen) == len(wanted[block.name].seen) > 1
            assert all(torch.equal(*pair) for pair in zip(found[block.name].seen, wanted[block.name].seen, strict=True))
        change(block)
    assert set(walked[:2]) == {"trunk.0", "trunk.2"}
    assert walked[2:] == ["pixels", "gate", "last", "rare.0", "rare.2"]


def test_a_block_that_some_batches_pass_by_is_met_layer_by_layer(shared, ask):
    clip, layers = engine_layers.unpack_layers(shared, "text")
    request = ask(W4)
    met = [block for block in blocks.walk(clip, layers, request) if block.name.startswith("rare")]
    assert [tuple(block.layers) for block in met] == [("rare.0",), ("rare.2",)]
    texts = request.calibration.text_passes(clip)
    called = []
    with clip.module.rare.register_forward_hook(lambda *given: called.append(1)):
        for encode in texts:
            encode()
    assert len(called) < len(texts)
    assert all(len(block.inputs) == len(called) for block in met)


def test_without_calibration_data_of_its_kind_a_tower_has_blocks_without_inputs(architecture_of, ask, calibration):
    clip, layers = engine_layers.unpack_layers(architecture_of("vit"), "vision")
    for block in blocks.walk(clip, layers, ask(W4, "vision", data=replace(calibration, images=None))):
        assert block.inputs == block.outputs() == []
        assert block.observe(tuple(block.layers), Keeper) == {}


def test_what_fails_inside_a_block_is_said_and_leaves_the_model_whole(architecture_of, ask):
    clip, layers = engine_layers.unpack_layers(architecture_of("vit"), "vision")
    walk = blocks.walk(clip, layers, ask(W4, "vision"))
    next(walk)

    def fail(*args):
        raise RuntimeError("no memory")

    clip.module.visual.transformer.resblocks[0].register_forward_pre_hook(fail)
    next(walk)  # its inputs are there before it fails
    with pytest.raises(RuntimeError, match="no memory"):
        next(walk)
    assert not any("forward" in vars(module) for module in clip.module.modules())
