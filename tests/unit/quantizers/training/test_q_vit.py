"""Q-ViT: queries and keys rectified, and their similarities distilled."""

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.unpack import Attention
from pytest_qreliab.quantizers.training import loop
from pytest_qreliab.quantizers.training.q_vit import GuidedObjective, Rectification, similarity_loss


def rectifications(clip) -> dict[str, Rectification]:
    return {name: module for name, module in clip.module.named_modules() if isinstance(module, Rectification)}


def test_the_loss_is_the_distance_of_rows_of_similarities_whatever_their_scale(random):
    ours, theirs = random(2, 3, 5, 4), random(2, 3, 5, 4, seed=1)
    expected = 0.0
    for image in range(2):
        for head in range(3):
            rows = [x[image, head] @ x[image, head].T for x in (ours, theirs)]
            for mine, other in zip(*rows, strict=True):
                expected += float((mine / mine.norm() - other / other.norm()).square().sum()) / (2 * 3 * 5)
    assert float(similarity_loss(ours, theirs)) == pytest.approx(expected, rel=1e-5)
    assert float(similarity_loss(ours * 3, ours)) == pytest.approx(0, abs=1e-10)
    assert float(similarity_loss(ours @ torch.linalg.qr(random(4, 4)).Q, ours)) == pytest.approx(0, abs=1e-10)


def test_rectification_is_the_papers_and_starts_as_nothing(random):
    x, mean, deviation = random(2, 3, 5, 4), random(4, seed=1), random(4, seed=2).exp()
    rectified = Rectification(mean, deviation, unit=0.25)
    torch.testing.assert_close(rectified(x), x)
    nn.init.constant_(rectified.gain, 2.0)
    nn.init.constant_(rectified.shift, -1.0)
    gain, shift = deviation * (1 + 0.25 * 2), mean - 0.25 * deviation  # gamma and beta
    torch.testing.assert_close(rectified(x), (x - mean) / deviation * gain + shift)


@pytest.mark.parametrize("architecture", ["vit", "timm-vit"], indirect=True)  # attention of this package and timm's
def test_queries_and_keys_are_rectified_by_moments_of_calibration_data(architecture, calibration, train):
    clip = architecture
    trained = train(clip, calibration, "q-vit", Format.integers(3, 8), steps=2, scope="vision")
    full, _ = engine_layers.unpack_layers(clip, "vision")
    found = rectifications(trained)
    assert found
    assert all(name.startswith("visual.") for name in found)
    first = next(name for name, module in full.module.named_modules() if hasattr(module, "q_norm"))
    seen = []
    full.module.get_submodule(f"{first}.q_norm").register_forward_hook(lambda module, args, out: seen.append(out))
    for images in calibration.batches(clip, 1024):
        full.encode_image(images)
    rows = torch.cat([x.flatten(0, -2) for x in seen])
    rectified = found[f"{first}.q_norm.1"]
    torch.testing.assert_close(rectified.mean, rows.mean(0), rtol=0.2, atol=0.2)  # those of rounded layers differ
    torch.testing.assert_close(rectified.deviation, rows.std(0), rtol=0.2, atol=0.2)
    assert all(bool(module.gain.any()) and bool(module.shift.any()) for module in found.values())
    assert not any(value.requires_grad for value in trained.module.parameters())


def test_the_similarities_are_added_to_the_loss_of_lsq(architecture_of, calibration, train, monkeypatch):
    losses = {}
    for kind in (loop.Objective, GuidedObjective):

        def spy(self, step, original=kind.__call__, kind=kind):
            loss = original(self, step)
            losses[kind] = float(loss.detach())
            return loss

        monkeypatch.setattr(kind, "__call__", spy)
    train(architecture_of("vit"), calibration, "q-vit", Format.integers(2), steps=1)
    both, features = losses[GuidedObjective], losses[loop.Objective]
    assert 0 < both - features < 4  # rows of unit length are at most 2 apart
    train(architecture_of("vit"), calibration, "lsq", Format.integers(2), steps=1)
    assert losses[loop.Objective] == pytest.approx(features, rel=1e-4)  # before its first step it is lsq's model


def test_without_attention_it_is_refused(architecture_of, calibration, train):
    with pytest.raises(InputError, match="scope 'vision' has no attention that it knows; take lsq"):
        train(architecture_of("convnext"), calibration, "q-vit", steps=1, batch=2, scope="vision")


def test_unpacked_attention_passes_queries_and_keys_by_heads(random):
    attention = Attention(nn.MultiheadAttention(8, 2, batch_first=True).eval())
    seen = []
    attention.k_norm.register_forward_hook(lambda module, args, out: seen.append(out))
    x = random(3, 5, 8)
    attention(x, x, x)
    assert torch.equal(seen[0], attention.k_proj(x).view(3, 5, 2, 4).transpose(1, 2))
