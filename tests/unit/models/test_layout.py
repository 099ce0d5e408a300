from contextlib import contextmanager

import pytest
import torch

from pytest_qreliab.models.layout import OPEN_CLIP, PASS_CONTEXT, no_fused_attention


def test_every_part_of_open_clip_is_of_one_tower(tiny):
    for name, _ in tiny.module.named_modules():
        if name:
            of = [scope for scope in ("vision", "text") if OPEN_CLIP.in_scope(name, scope)]
            assert of == ["vision" if name.split(".")[0] == "visual" else "text"], name
            assert OPEN_CLIP.in_scope(name, "both")
    assert OPEN_CLIP.in_scope("visual_projection", "text")


def test_features_of_a_pass_with_a_map_are_those_of_a_pass_without(tiny):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features, patch_map = tiny.encode_image_with_map(images)
    torch.testing.assert_close(features, tiny.encode_image(images))
    visual = tiny.module.visual
    assert patch_map.shape == (2, visual.transformer.width, *visual.grid_size)
    local = OPEN_CLIP.encode_image_with_local(tiny.module, images)
    assert torch.equal(local.features, features)
    assert torch.equal(local.patch_map, patch_map)


def test_a_tower_without_intermediates_shows_no_map(tiny):
    images = torch.zeros(1, 3, 32, 32)
    module = tiny.copy().module
    module.visual.forward_intermediates = None
    features, patch_map = OPEN_CLIP.encode_image_with_map(module, images)
    assert torch.equal(features, tiny.module.encode_image(images))
    assert patch_map is None


@pytest.mark.parametrize("before", [True, False])
def test_fused_attention_is_off_within_and_as_before_after_an_error(before):
    def run():
        with no_fused_attention():
            assert not torch.backends.mha.get_fastpath_enabled()
            raise ZeroDivisionError

    usual = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(before)
    try:
        with pytest.raises(ZeroDivisionError):
            run()
        assert torch.backends.mha.get_fastpath_enabled() == before
    finally:
        torch.backends.mha.set_fastpath_enabled(usual)


def test_towers_encode_in_the_context_that_is_set_on_the_module(tiny):
    entered = []

    @contextmanager
    def context(module, tower):
        entered.append((module, tower))
        yield

    module, images = tiny.copy().module, torch.zeros(1, 3, 32, 32)
    module.__dict__[PASS_CONTEXT] = context
    OPEN_CLIP.encode_image(module, images)
    OPEN_CLIP.encode_image_with_map(module, images)
    OPEN_CLIP.encode_text(module, tiny.tokenizer(["two"]), torch.device("cpu"))
    assert entered == [(module, "vision"), (module, "vision"), (module, "text")]
