"""A CLIP of open_clip, through its own module."""

import math
from dataclasses import replace

import open_clip
import pytest
import torch

from pytest_qreliab.models.clip import Clip

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_encoding_is_the_modules_own_and_keeps_no_gradient(tiny):
    texts = ["a handwritten two.", "9"]
    with torch.no_grad():
        assert torch.equal(tiny.encode_image(IMAGES), tiny.module.encode_image(IMAGES))
        assert torch.equal(tiny.encode_text(texts), tiny.module.encode_text(tiny.tokenizer(texts)))
    assert not tiny.encode_image(IMAGES.requires_grad_()).requires_grad


def test_the_logit_scale_is_the_exponential_of_the_learned_parameter(tiny):
    assert tiny.logit_scale == pytest.approx(math.exp(tiny.module.logit_scale.item()))
    copy = tiny.copy()
    copy.set_logit_scale(20.0)
    assert copy.logit_scale == pytest.approx(20)
    assert copy.module.logit_scale.item() == pytest.approx(math.log(20))
    assert tiny.logit_scale != pytest.approx(20)


@pytest.mark.parametrize("bias", [None, -10.0])
def test_the_logit_bias_is_that_of_siglip_or_zero(bias):
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    module = open_clip.CustomTextCLIP(8, vision, text, init_logit_bias=bias).requires_grad_(False)
    assert Clip("small", module, None, None).logit_bias == (bias or 0.0)


def test_a_copy_has_weights_of_its_own(tiny):
    copy = tiny.copy()
    expected = tiny.encode_image(IMAGES)
    assert torch.equal(copy.encode_image(IMAGES), expected)
    copy.module.visual.proj.data.zero_()
    assert not copy.encode_image(IMAGES).any()
    assert torch.equal(tiny.encode_image(IMAGES), expected)
    assert replace(copy, module=tiny.module) == tiny
