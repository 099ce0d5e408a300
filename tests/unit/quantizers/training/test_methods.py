"""Every training method, on the trained model and on every architecture."""

from dataclasses import replace

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.input_quantizer import find_input_quantizer
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
    "q-vit",
)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "omniquant"])  # which trains by block
def test_training_lowers_the_loss(tiny, calibration, method, monkeypatch, train):
    losses = []

    def spy(self, step, original=loop.Objective.__call__):
        loss = original(self, step)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(loop.Objective, "__call__", spy)
    train(tiny, calibration, method, Format.integers(2), steps=6, batch=40)
    assert len(losses) == 6
    assert losses[-1] < 0.98 * losses[0]


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tiny, calibration, train, state):
    """A method, the model's state before, and what came of it at w3a8."""
    before = state(tiny)
    return request.param, before, train(tiny, calibration, request.param, Format.integers(3, 8))


def test_eight_bits_stay_close_to_full_precision_and_error_falls_with_bits(
    tiny, calibration, pixels, trained, train, feature_error
):
    method, _, at_three = trained
    at_eight = feature_error(train(tiny, calibration, method, Format.integers(8, 8)), tiny, pixels)
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
        one = train(clip, calibration, method, Format.integers(3, 8))
    assert torch.equal(torch.get_rng_state(), random)
    torch.manual_seed(2)
    assert same(one, train(clip, calibration, method, Format.integers(3, 8)))
    assert not same(one, train(clip, calibration, method, Format.integers(3, 8), seed=1))


@pytest.mark.parametrize("method", ["lsq", "lsq+contrastive", "distillation", "omniquant"])
def test_scope_leaves_the_other_tower_bit_for_bit(architecture_of, calibration, noise, method, train):
    clip, texts = architecture_of("vit"), list(calibration.templates)
    pixels = noise(clip)
    vision = train(clip, calibration, method, Format.integers(2, 8), scope="vision")
    assert torch.equal(vision.encode_text(texts), clip.encode_text(texts))
    assert not torch.equal(vision.encode_image(pixels), clip.encode_image(pixels))
    text = train(clip, calibration, method, Format.integers(2, 8), scope="text")
    assert torch.equal(text.encode_image(pixels), clip.encode_image(pixels))
    assert not torch.equal(text.encode_text(texts), clip.encode_text(texts))
    assert vision.logit_scale == clip.logit_scale


@pytest.mark.parametrize("method", ["lsq", "lsq+contrastive", "distillation"])
def test_captions_decide_what_is_trained_towards_and_labels_do_not(architecture_of, calibration, method, train, same):
    clip, images = architecture_of("vit"), calibration.images
    pairs = replace(images, labels=None, captions=[f"caption {i}" for i in range(40)])
    trained = train(clip, replace(calibration, pairs=pairs), method)
    relabelled = replace(calibration, images=replace(images, labels=images.labels[::-1].copy()), pairs=pairs)
    assert same(trained, train(clip, relabelled, method))
    assert not same(trained, train(clip, calibration, method))


@pytest.fixture(scope="module")
def check_coverage(calibration, train):
    few = replace(calibration, images=calibration.images.first_evenly(4))

    def check(clip: Clip, method: str) -> None:
        quantized = train(clip, few, method, Format.integers(3, 8), steps=2, batch=2)
        found = coverage.measure(clip, quantized, Format.integers(3, 8), "both")
        assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())

    return check


@pytest.mark.parametrize("method", ["lsq-8bit-ends", "dsq-8bit-ends"])
@pytest.mark.parametrize("scope", ["both", "text"])
def test_eight_bits_are_for_what_reads_pixels_and_what_writes_features(tiny, calibration, method, scope, train):
    trained = train(tiny, calibration, method, Format.integers(2, 4), scope=scope, steps=2)
    _, layers = engine_layers.unpack_layers(trained, scope)
    ends = {"visual.conv1", "visual.proj", "text_projection"} & layers.keys()
    assert len(ends) == (3 if scope == "both" else 1)
    for name, layer in layers.items():
        read = find_input_quantizer(layer).round(torch.linspace(-50, 50, 10_001)).unique()
        levels = max(len(row.unique()) for row in layer.weight.flatten(1))
        if name in ends:
            assert 16 < levels <= 256, name
            assert 16 < len(read) <= 256, name
        else:
            assert levels <= 4, name
            assert len(read) <= 16, name


GRIDS = (
    ("lsq", {"granularity": "tensor"}),
    ("lsq", {"granularity": 16}),
    ("lsq", {"symmetric": False, "symmetric_activations": False}),
    ("lsq", {"restricted_range": True}),
    ("lsq", {"activations": "dynamic"}),
    ("dsq", {"symmetric": False, "granularity": 16}),
    ("lr-qat", {"symmetric": False, "granularity": 16}),
)


@pytest.mark.parametrize(("method", "given"), GRIDS, ids=lambda value: str(value))
def test_what_is_left_lies_on_fixed_grids_of_the_kind_asked_for(
    architecture_of, calibration, method, given, train, random
):
    trained = train(architecture_of("vit"), calibration, method, Format.integers(3, 4), scope="vision", **given)
    _, layers = engine_layers.unpack_layers(trained, "vision")
    most = 7 if given.get("restricted_range") else 8
    for layer in layers.values():
        for row in grid.to_rows(layer.weight, given.get("granularity", "channel")):
            levels = row.unique()
            steps = levels.diff() / levels.diff().min()
            torch.testing.assert_close(steps, steps.round(), rtol=1e-3, atol=1e-3)
            assert float(levels.diff().sum() / levels.diff().min()) < most - 0.5
        x = random(2, *layer.weight.shape[1:])  # two tokens, or two images
        x[1] *= 1e6
        read = find_input_quantizer(layer).round(x)
        assert all(len(one.unique()) <= 16 for one in read)
        assert (len(read[1].unique()) > 2) == (given.get("activations") == "dynamic")  # a static range clips the second


@pytest.mark.parametrize("text", ["w4g128a8", "fp8", "mxfp4", "nvfp4", "bf16"])
def test_steps_of_every_format_are_learned_and_known_again(tiny, calibration, pixels, train, feature_error, text):
    form = Format.of(text)
    before, after = (train(tiny, calibration, bits=form, steps=steps) for steps in (1, 8))
    found = coverage.measure(tiny, after, form, "both")
    assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())
    assert feature_error(after, tiny, pixels) < max(0.1, feature_error(before, tiny, pixels))


@pytest.mark.parametrize("method", ["lsq", "omniquant"])
def test_every_architecture_is_covered(architecture, method, check_coverage):
    check_coverage(architecture, method)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("lsq", "omniquant")])
@pytest.mark.parametrize("architecture", ["convnext", "siglip-like"], indirect=True)
def test_every_method_covers(architecture, method, check_coverage):
    check_coverage(architecture, method)
