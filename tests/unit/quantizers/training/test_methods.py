"""Every training method, on the trained model and on every architecture."""

from dataclasses import replace

import pytest
import torch

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.training import loop

METHODS = (
    "lsq",
    "lsq+contrastive",
    "lsq+contrastive+mse",
    "quarot+lsq",
    "dsq",
    "lr-qat",
    "omniquant",
    "distillation",
)


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(tiny, calibration, method, monkeypatch, train):
    losses = []

    def spy(self, step, original=loop.Objective.__call__):
        loss = original(self, step)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(loop.Objective, "__call__", spy)
    train(tiny, calibration, method, Bits(2), steps=6, batch=40, learning_rate=0.05)
    assert len(losses) == 6
    assert losses[-1] < 0.98 * losses[0]


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tiny, calibration, train, state):
    """A method, the model's state before, and what came of it at w3a8."""
    before = state(tiny)
    return request.param, before, train(tiny, calibration, request.param, Bits(3, 8))


def test_eight_bits_stay_close_to_full_precision_and_error_falls_with_bits(
    tiny, calibration, pixels, trained, train, feature_error
):
    method, _, at_three = trained
    at_eight = feature_error(train(tiny, calibration, method, Bits(8, 8)), tiny, pixels)
    assert at_eight < feature_error(at_three, tiny, pixels)
    assert at_eight < 0.005


def test_the_model_is_left_as_any_quantizer_leaves_it(tiny, pixels, trained, state):
    _, before, quantized = trained
    after = state(tiny)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in quantized.module.parameters())
    assert not any(module.training for module in quantized.module.modules())
    assert not any("parametriz" in name for name, _ in quantized.module.named_modules())
    copied = quantized.copy()
    assert torch.equal(copied.encode_image(pixels), quantized.encode_image(pixels))


@pytest.mark.parametrize("method", ["lsq", "lr-qat"])
def test_the_seed_alone_decides(architecture_of, calibration, method, train, same):
    clip = architecture_of("vit")
    torch.manual_seed(1)
    random = torch.get_rng_state()
    with torch.no_grad():
        one = train(clip, calibration, method, Bits(3, 8))
    assert torch.equal(torch.get_rng_state(), random)
    torch.manual_seed(2)
    assert same(one, train(clip, calibration, method, Bits(3, 8)))
    assert not same(one, train(clip, calibration, method, Bits(3, 8), seed=1))


@pytest.mark.parametrize("method", ["lsq", "lsq+contrastive", "distillation", "omniquant"])
def test_scope_leaves_the_other_tower_bit_for_bit(architecture_of, calibration, noise, method, train):
    clip, texts = architecture_of("vit"), list(calibration.templates)
    pixels = noise(clip)
    vision = train(clip, calibration, method, Bits(2, 8), scope="vision")
    assert torch.equal(vision.encode_text(texts), clip.encode_text(texts))
    assert not torch.equal(vision.encode_image(pixels), clip.encode_image(pixels))
    text = train(clip, calibration, method, Bits(2, 8), scope="text")
    assert torch.equal(text.encode_image(pixels), clip.encode_image(pixels))
    assert not torch.equal(text.encode_text(texts), clip.encode_text(texts))
    assert vision.logit_scale == clip.logit_scale


@pytest.fixture(scope="module")
def check_coverage(calibration, train):
    few = replace(calibration, images=calibration.images.first_evenly(4))

    def check(clip: Clip, method: str) -> None:
        quantized = train(clip, few, method, Bits(3, 8), steps=2, batch=2)
        found = coverage.measure(clip, quantized, Bits(3, 8), "both")
        assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())

    return check


@pytest.mark.parametrize("method", ["lsq", "omniquant"])
def test_every_architecture_is_covered(architecture, method, check_coverage):
    check_coverage(architecture, method)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("lsq", "omniquant")])
@pytest.mark.parametrize("architecture", ["convnext", "siglip-like"], indirect=True)
def test_every_method_covers(architecture, method, check_coverage):
    check_coverage(architecture, method)
