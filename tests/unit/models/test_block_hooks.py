"""The maps after the blocks of an image tower, and its penultimate features, against the towers' own methods."""

import open_clip
import pytest
import torch

from pytest_qreliab.metrics import spectral
from pytest_qreliab.models import block_hooks
from pytest_qreliab.models.block_hooks import watch_blocks
from pytest_qreliab.models.clip import Clip

TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 3, "width": 32, "patch_size": 8, "head_width": 16}
TOWERS = {
    "ViT": (VIT, 3),
    "ViT, attention pool": ({**VIT, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}, 3),
    "ModifiedResNet": ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}, 4),
    "ConvNeXt": ({"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 64}, 4),
    "timm's ViT": ({"timm_model_name": "vit_tiny_patch16_224", "timm_proj": "linear", "image_size": 224}, 12),
}


@pytest.fixture(scope="module", params=TOWERS)
def tower(request) -> tuple[Clip, torch.Tensor, int]:
    config, blocks = TOWERS[request.param]
    torch.manual_seed(0)
    module = open_clip.CLIP(embed_dim=16, vision_cfg=config, text_cfg=TEXT).eval()
    images = torch.randn(2, 3, config["image_size"], config["image_size"])
    return Clip(request.param, module, None, None), images, blocks


def test_each_block_shows_the_map_that_the_tower_itself_gives(tower):
    clip, images, count = tower
    with watch_blocks(clip, lambda maps: maps) as seen, torch.no_grad():
        features, last = clip.encode_image_with_map(images)
    assert len(seen.blocks) == count
    own = clip.module.visual.forward_intermediates(images, output_fmt="NCHW")["image_intermediates"][-count:]
    for found, expected in zip(seen.blocks, own, strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(seen.blocks[-1], last)
    torch.testing.assert_close(features, clip.encode_image(images))


def test_the_penultimate_features_are_what_the_last_projection_reads(tower):
    clip, images, _ = tower
    visual = clip.module.visual
    with watch_blocks(clip, spectral.power) as seen, torch.no_grad():
        features = clip.encode_image(images)
        if clip.name == "ModifiedResNet":
            assert seen.penultimate is None  # its pool projects what it mixes
            return
        projected = visual.head(seen.penultimate) if hasattr(visual, "head") else seen.penultimate @ visual.proj
    torch.testing.assert_close(projected, features)


def test_nothing_of_it_is_left_behind(tower):
    clip, images, _ = tower
    with watch_blocks(clip, lambda maps: maps) as seen:
        clip.encode_image(images)
    found = seen.blocks
    clip.encode_image(images)
    assert seen.blocks is found
    assert "_pool" not in vars(clip.module.visual)


def test_local_features_do_not_disturb_it(tiny):
    images = torch.stack([torch.rand(3, *tiny.module.visual.image_size)] * 2)
    with watch_blocks(tiny, lambda maps: maps) as seen:
        tiny.encode_image_with_map(images)
    blocks, penultimate = seen.blocks, seen.penultimate
    with watch_blocks(tiny, lambda maps: maps) as seen:
        tiny.encode_image_with_local(images)
    assert len(seen.blocks) == len(blocks)
    torch.testing.assert_close(seen.blocks, blocks)
    torch.testing.assert_close(seen.penultimate, penultimate)


def test_a_model_that_is_not_open_clips_shows_none(tiny):
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = tiny.module.visual
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))

        def encode_image(self, images):
            return self.visual(images)

        def encode_text(self, tokens):
            return tiny.module.encode_text(tokens)

    clip = Clip.wrap(Own(), tiny.preprocess, tiny.tokenizer)
    with watch_blocks(clip, lambda maps: maps) as seen:
        clip.encode_image(torch.rand(1, 3, *tiny.module.visual.image_size))
    assert seen.blocks == []


def test_what_is_no_map_is_passed_by():
    assert block_hooks._square(torch.zeros(2, 5, 3), 1, (2, 2)).shape == (2, 3, 2, 2)
    assert block_hooks._square(torch.zeros(2, 6, 3), 1, (2, 2)) is None
    assert block_hooks._spatial(torch.zeros(2, 4, 3)) is None


@pytest.mark.slow
def test_compiled_blocks_give_what_the_model_gives_however_it_rounds(make_plan, small_benchmark):
    """Those with quantized activations too, after others of the same code without."""
    from pytest_qreliab.evaluation.evaluator import Evaluator

    found = []
    for compiled in ("yes", "no"):
        plan = make_plan(bits="w4,4", benchmarks=str(small_benchmark), compile=compiled)
        evaluator = Evaluator(plan)
        found.append([{name: c.quantized for name, c in evaluator.result(case).changes.items()} for case in plan.cases])
    for ours, theirs in zip(*found, strict=True):
        assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-4)
        assert ours["ood.auroc.mcm"] == pytest.approx(theirs["ood.auroc.mcm"], abs=1e-3)
        assert ours["kl"] == pytest.approx(theirs["kl"], rel=1e-2)


def test_a_model_of_unknown_blocks_is_not_compiled(tiny):
    from pytest_qreliab.errors import InputError
    from pytest_qreliab.models.block_hooks import compile_blocks

    with pytest.raises(InputError, match="its blocks are not known, and cannot be compiled"):
        compile_blocks(Clip.wrap(tiny.module, tiny.preprocess, tiny.tokenizer))
