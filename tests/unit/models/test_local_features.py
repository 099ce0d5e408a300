"""Local features against computations by hand from the packed weights, in full precision."""

import open_clip
import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.models import local_features
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.onnx_towers import OnnxClip
from pytest_qreliab.models.tiny_digits import ByteTokenizer

VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
POOLED = {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def clip(**vision) -> Clip:
    torch.manual_seed(0)
    text = {"context_length": 24, "vocab_size": 258, "width": 32, "heads": 2, "layers": 1}
    module = open_clip.CLIP(16, vision, text).eval().requires_grad_(False)
    for parameter in module.visual.parameters():  # biases and norms are made as 0 and 1, which hides mistakes
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return Clip("small", module, lambda image: image, ByteTokenizer(24))


def value(attention, x):
    """Linear in the value and the output part of `nn.MultiheadAttention`'s packed weights."""
    if attention.in_proj_weight is None:
        weight, bias = attention.v_proj_weight, attention.in_proj_bias.chunk(3)[2]
    else:
        weight, bias = (packed.chunk(3)[2] for packed in (attention.in_proj_weight, attention.in_proj_bias))
    return F.linear(F.linear(x, weight, bias), attention.out_proj.weight, attention.out_proj.bias)


def before_last_block(visual, images):
    x = visual._embeds(images)
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    return x


def alone(block, x):
    x = x + value(block.attn, block.ln_1(x))
    return x + block.mlp(block.ln_2(x))


@pytest.mark.parametrize("more", [{}, {"pool_type": "avg", "no_ln_pre": True}, {"final_ln_after_pool": True}], ids=str)
def test_a_vits_are_its_last_blocks_values(more):
    model = clip(**VIT, **more)
    visual = model.module.visual
    features, patch_map, found = model.encode_image_with_local(IMAGES)
    with_map = model.encode_image_with_map(IMAGES)
    assert torch.equal(features, with_map[0])
    assert torch.equal(patch_map, with_map[1])
    assert found.shape == (3, 16, 16)
    mixed_so_far = before_last_block(visual, IMAGES)
    expected = visual.ln_post(alone(visual.transformer.resblocks[-1], mixed_so_far))[:, 1:] @ visual.proj
    torch.testing.assert_close(found, expected)
    assert not visual.transformer.resblocks[-1]._forward_pre_hooks  # nothing is left behind


def test_a_tower_that_sees_one_token_gives_its_own_feature():
    model = clip(**VIT)
    visual = model.module.visual
    visual._embeds = lambda images, embeds=visual._embeds: embeds(images)[:, 1:2]  # the first patch, as class token
    first_patch = visual(IMAGES)
    del visual._embeds
    x = torch.cat([torch.zeros(3, 1, 32), visual._embeds(IMAGES)[:, 1:2]], dim=1)
    x = torch.cat([x[:, :1], visual.transformer.resblocks[0](x[:, 1:])], dim=1)
    torch.testing.assert_close(local_features.encode_patches(visual, x), first_patch[:, None])


def test_an_attentional_pools_are_its_values():
    model = clip(**VIT, **POOLED)
    visual, pool = model.module.visual, model.module.visual.attn_pool
    found = model.encode_image_with_local(IMAGES).local
    patches = visual.transformer(visual._embeds(IMAGES))[:, 1:]
    expected = visual.ln_post(value(pool.attn, pool.ln_k(patches))) @ visual.proj
    torch.testing.assert_close(found, expected)


def test_a_resnets_are_its_attention_pools_values():
    model = clip(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=8)
    visual, pool = model.module.visual, model.module.visual.attnpool
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features, _, found = model.encode_image_with_local(images)
    assert torch.equal(features, model.encode_image_with_map(images)[0])
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))
    row, column = x.shape[2] - 1, 0
    place = x[:, :, row, column]
    expected = F.linear(F.linear(place, pool.v_proj.weight, pool.v_proj.bias), pool.c_proj.weight, pool.c_proj.bias)
    torch.testing.assert_close(found[:, row * x.shape[3] + column], expected)
    assert found.shape == (3, x.shape[2] * x.shape[3], 16)


def test_a_resnets_positional_embedding_is_no_part_of_local_features():
    """In the code of GL-MCM (Miyai et al.) local features are taken before it is added."""
    model = clip(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=8)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features, _, found = model.encode_image_with_local(images)
    model.module.visual.attnpool.positional_embedding.mul_(0).add_(100 * torch.randn(1))
    others = model.encode_image_with_local(images)
    torch.testing.assert_close(others.local, found)
    assert not torch.allclose(others.features, features)


def test_more_sequences_than_a_kernel_takes_come_in_parts(monkeypatch):
    model = clip(**VIT)
    whole = model.encode_image_with_local(IMAGES).local
    monkeypatch.setattr(local_features, "SEQUENCES", 7)
    torch.testing.assert_close(model.encode_image_with_local(IMAGES).local, whole)


def test_towers_that_show_none():
    timm = clip(timm_model_name="test_vit", timm_pool="avg", timm_proj="linear", image_size=160)
    features, _, found = timm.encode_image_with_local(torch.zeros(1, 3, 160, 160))
    assert (features.shape, found) == ((1, 16), None)
    vit = clip(**VIT)
    wrapped = Clip.wrap(vit.module, lambda image: IMAGES[0], vit.tokenizer)
    features, patch_map, found = wrapped.encode_image_with_local(IMAGES)
    assert torch.equal(features, wrapped.encode_image(IMAGES))
    assert (patch_map, found) == (None, None)


def test_the_original_tower_beside_an_onnx_text_tower_keeps_its_own(tiny):
    images = torch.zeros(1, 3, 32, 32)
    beside = Clip("beside", OnnxClip(tiny.module, {}), tiny.preprocess, tiny.tokenizer)
    assert torch.equal(beside.encode_image_with_local(images).local, tiny.encode_image_with_local(images).local)
