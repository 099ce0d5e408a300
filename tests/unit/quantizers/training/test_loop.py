import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.data import images
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.parameters import RoundingParameters, Training
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import loop, pairs, parametrize
from pytest_qreliab.quantizers.training import losses as training_losses
from pytest_qreliab.quantizers.training.checkpoint import Checkpoint, CheckpointWarning
from pytest_qreliab.quantizers.training.losses import Features

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
W3 = Bits(3)
CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEMPLATES = ["a photo of the digit {}.", "a handwritten {}.", "{}"]


@pytest.fixture(scope="module")
def calibration():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    return Calibration(images.from_arrays("noise", pixels, np.arange(40) % 10), None, CLASSES, TEMPLATES)


@pytest.fixture(scope="module")
def pixels(tiny, calibration):
    return torch.stack([tiny.preprocess(calibration.images.load(i)) for i in range(8)])


def quantize(clip: Clip, calibration: Calibration, method: str = "lsq", bits: Bits = W3, **given):
    recipe = Catalog().recipe(method)
    request = {key: given.pop(key) for key in ("scope", "advance", "checkpoints") if key in given}
    parameters = recipe.quantizer.parameters(**({"steps": 4, "batch": 8} | given))
    return recipe.apply()(
        clip, Request(bits, **({"scope": "both"} | request), parameters=parameters, calibration=calibration)
    )


def error(clip: Clip, other: Clip, pixels: torch.Tensor) -> float:
    """Mean squared distance of unit image and text features, summed."""
    texts = [caption.replace("{}", CLASSES[3]) for caption in TEMPLATES]
    return sum(
        float((F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).square().sum(1).mean())
        for a, b in (
            (clip.encode_image(pixels), other.encode_image(pixels)),
            (clip.encode_text(texts), other.encode_text(texts)),
        )
    )


def state(clip: Clip) -> dict[str, torch.Tensor]:
    """Weights, and what the input quantizers make of a ramp: all that a quantized model is."""
    found = dict(clip.module.state_dict())
    for name, layer in clip.module.named_modules():
        for hook in layer._forward_pre_hooks.values():
            if hook.round is not None:
                found[f"{name}.grid"] = hook.round(torch.linspace(-20, 20, 1001))
    return found


def same(one: Clip, other: Clip) -> bool:
    a, b = state(one), state(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Data


def test_pairs_are_every_image_with_the_templates_of_its_class_in_turn(tiny, calibration):
    request = Request(Bits(3), "both", Catalog().recipe("lsq+contrastive").parameters, calibration)
    data = pairs.load(tiny, request, paired=True)
    assert data.pixels.shape == (40, 3, 32, 32)
    assert data.labels.tolist() == calibration.images.labels.tolist()
    assert len(data.texts) == 30
    captions = [TEMPLATES[i // 10 % 3].replace("{}", CLASSES[i % 10]) for i in range(40)]
    assert [data.texts[place] for place in data.captions.tolist()] == captions


@pytest.mark.parametrize(("scope", "has"), [("vision", (40, 0)), ("text", (0, 30)), ("both", (40, 30))])
def test_unpaired_data_are_those_of_the_towers_in_scope(tiny, calibration, scope, has):
    request = Request(Bits(3), scope, Catalog().recipe("lsq").parameters, calibration)
    data = pairs.load(tiny, request, paired=False)
    assert tuple(0 if part is None else len(part) for part in (data.pixels, data.texts)) == has
    assert data.labels is None


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (7, 7), (5, 16)])
def test_an_epoch_draws_every_item_once_and_a_step_the_same_again(count, batch):
    drawn = torch.cat([pairs.draw(count, batch, 3, step) for step in range(count)])
    used = min(batch, count)
    assert len(drawn) == used * count
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in drawn.split(count))
    assert torch.equal(pairs.draw(count, batch, 3, 2), drawn[2 * used : 3 * used])
    assert not torch.equal(torch.cat([pairs.draw(count, batch, 4, step) for step in range(count)]), drawn)


# Losses


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    rows = [F.normalize(torch.randn(6, 5, generator=generator), dim=1) for _ in range(4)]
    return Features(*rows, torch.tensor([0, 1, 0, 2, 2, 0]), 7.0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_feature_mse_is_numpys(features):
    image, text, teacher_image, teacher_text = (
        part.numpy() for part in (features.image, features.text, features.teacher_image, features.teacher_text)
    )
    expected = ((image - teacher_image) ** 2).sum(1).mean() + ((text - teacher_text) ** 2).sum(1).mean()
    assert float(training_losses.feature_mse(features)) == pytest.approx(expected, rel=1e-5)
    alone = replace(features, text=None, teacher_text=None)
    assert float(training_losses.feature_mse(alone)) == pytest.approx(
        ((image - teacher_image) ** 2).sum(1).mean(), rel=1e-5
    )


def test_the_contrastive_loss_is_numpys(features):
    logits, labels = 7 * features.image.numpy() @ features.text.numpy().T, features.labels.numpy()
    expected = 0.0
    for way in (log_softmax(logits), log_softmax(logits.T)):
        for row in range(6):
            expected -= way[row, labels == labels[row]].mean() / 12
    assert float(training_losses.contrastive(features)) == pytest.approx(expected, rel=1e-5)
    both = float(training_losses.contrastive_and_mse(features))
    assert both == pytest.approx(expected + float(training_losses.feature_mse(features)), rel=1e-5)


def test_the_contrastive_loss_of_distinct_classes_is_clips(features):
    distinct = replace(features, labels=torch.arange(6))
    expected = (
        F.cross_entropy(features.logits(), torch.arange(6)) + F.cross_entropy(features.logits().T, torch.arange(6))
    ) / 2
    torch.testing.assert_close(training_losses.contrastive(distinct), expected)


def test_the_distillation_loss_is_numpys(features):
    ours = 7 * features.image.numpy() @ features.text.numpy().T
    theirs = 7 * features.teacher_image.numpy() @ features.teacher_text.numpy().T
    expected = 0.0
    for o, t in ((log_softmax(ours), log_softmax(theirs)), (log_softmax(ours.T), log_softmax(theirs.T))):
        expected += (np.exp(t) * (t - o)).sum() / 12
    assert float(training_losses.distillation_loss(features)) == pytest.approx(expected, rel=1e-4)
    itself = replace(features, image=features.teacher_image, text=features.teacher_text)
    assert float(training_losses.distillation_loss(itself)) == pytest.approx(0, abs=1e-6)


# Training


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(tiny, calibration, method, monkeypatch):
    losses = []

    def spy(self, step, original=loop.Objective.__call__):
        loss = original(self, step)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(loop.Objective, "__call__", spy)
    quantize(tiny, calibration, method, Bits(2), steps=6, batch=40, learning_rate=0.05)
    assert len(losses) == 6
    assert losses[-1] < 0.98 * losses[0]


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tiny, calibration):
    """A method, the model's state before, and what came of it at w3a8."""
    before = state(tiny)
    return request.param, before, quantize(tiny, calibration, request.param, Bits(3, 8))


def test_eight_bits_stay_close_to_full_precision_and_error_falls_with_bits(tiny, calibration, pixels, trained):
    method, _, at_three = trained
    at_eight = error(quantize(tiny, calibration, method, Bits(8, 8)), tiny, pixels)
    assert at_eight < error(at_three, tiny, pixels)
    assert at_eight < 0.005


def test_it_errs_less_than_rounding_does(tiny, calibration, pixels):
    request = Request(Bits(2), "both", RoundingParameters(), calibration)
    rounded = procedure.quantize(tiny, request, rounder=procedure.nearest(grid.mse))
    assert error(quantize(tiny, calibration, bits=Bits(2), steps=20), tiny, pixels) < error(rounded, tiny, pixels) / 2


def test_the_model_is_left_as_any_quantizer_leaves_it(tiny, pixels, trained):
    _, before, quantized = trained
    after = state(tiny)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in quantized.module.parameters())
    assert not any(module.training for module in quantized.module.modules())
    assert not any("parametriz" in name for name, _ in quantized.module.named_modules())
    copied = quantized.copy()
    assert torch.equal(copied.encode_image(pixels), quantized.encode_image(pixels))


@pytest.mark.parametrize("method", ["lsq", "lr-qat"])
def test_the_seed_alone_decides(tiny, calibration, method):
    torch.manual_seed(1)
    random = torch.get_rng_state()
    with torch.no_grad():
        one = quantize(tiny, calibration, method, Bits(3, 8))
    assert torch.equal(torch.get_rng_state(), random)
    torch.manual_seed(2)
    assert same(one, quantize(tiny, calibration, method, Bits(3, 8)))
    assert not same(one, quantize(tiny, calibration, method, Bits(3, 8), seed=1))


@pytest.mark.parametrize("method", ["lsq", "lsq+contrastive", "distillation", "omniquant"])
def test_scope_leaves_the_other_tower_bit_for_bit(tiny, calibration, pixels, method):
    vision = quantize(tiny, calibration, method, Bits(2, 8), scope="vision")
    assert torch.equal(vision.encode_text(TEMPLATES), tiny.encode_text(TEMPLATES))
    assert not torch.equal(vision.encode_image(pixels), tiny.encode_image(pixels))
    text = quantize(tiny, calibration, method, Bits(2, 8), scope="text")
    assert torch.equal(text.encode_image(pixels), tiny.encode_image(pixels))
    assert not torch.equal(text.encode_text(TEMPLATES), tiny.encode_text(TEMPLATES))
    assert vision.logit_scale == tiny.logit_scale


def test_the_text_tower_alone_needs_no_images(tiny, calibration):
    alone = replace(calibration, images=None)
    assert same(quantize(tiny, alone, scope="text"), quantize(tiny, calibration, scope="text"))


def run(tiny, calibration, loss, **given):
    request = Request(W3, "both", Training(batch=8, **given), calibration)
    loop.quantize(tiny, request, "test", loss=loss, attach=parametrize.learn_steps)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_becomes_nan_is_refused(tiny, calibration, bad):
    factors = iter([1.0, 1.0, bad])
    with pytest.raises(
        InputError, match=rf"^tiny-digits: the loss became {bad} at training step 3; lower learning_rate"
    ):
        run(tiny, calibration, lambda features: training_losses.feature_mse(features) * next(factors), steps=4)


def test_a_last_step_that_breaks_the_weights_is_refused(tiny, calibration):
    with pytest.raises(InputError, match="the loss became nan at training step 2; lower learning_rate"):
        # 0, with a gradient of NaN
        run(tiny, calibration, lambda features: (training_losses.feature_mse(features) * 0).sqrt(), steps=2)


def test_a_model_of_nan_is_refused(tiny, calibration):
    broken = tiny.copy()
    with torch.no_grad():
        broken.module.visual.conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity in the full-precision features"):
        quantize(broken, calibration)


def test_layers_that_no_feature_comes_from_may_hold_anything(tiny, calibration):
    clip = tiny.copy()
    clip.module.decoder = torch.nn.Linear(4, 4).eval()
    torch.nn.init.constant_(clip.module.decoder.weight, torch.nan)
    assert quantize(clip, calibration, bits=Bits(3, 8)).encode_text(TEMPLATES).isfinite().all()


# Checkpoints


class KilledError(Exception):
    pass


def killed_after(steps: int):
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if done >= steps:
            raise KilledError

    return advance


@pytest.mark.parametrize("method", ["lsq+contrastive", "dsq", "omniquant"])
def test_a_killed_run_goes_on_to_the_same_result(tiny, calibration, tmp_path, method):
    bits = Bits(3, 8)
    whole = quantize(tiny, calibration, method, bits, steps=6)
    with pytest.raises(KilledError):
        quantize(tiny, calibration, method, bits, steps=6, checkpoints=tmp_path, advance=killed_after(4))
    advances = []
    resumed = quantize(tiny, calibration, method, bits, steps=6, checkpoints=tmp_path, advance=advances.append)
    assert advances == [4, 1, 1]
    assert same(resumed, whole)


def test_a_finished_run_is_not_trained_again(tiny, calibration, tmp_path, monkeypatch):
    first = quantize(tiny, calibration, bits=Bits(3, 8), checkpoints=tmp_path)
    (path,) = tmp_path.iterdir()
    assert torch.load(path, weights_only=True)["optimizer"] is None
    monkeypatch.delattr(loop, "_run")
    advances = []
    second = quantize(tiny, calibration, bits=Bits(3, 8), checkpoints=tmp_path, advance=advances.append)
    assert advances == [4]
    assert same(first, second)


def test_a_checkpoint_is_of_one_run_only(tiny, calibration, tmp_path):
    def files(clip=tiny, data=calibration, **given) -> int:
        quantize(clip, data, **({"steps": 1} | given), checkpoints=tmp_path / "new" / "folder")
        return len(list((tmp_path / "new" / "folder").iterdir()))

    assert files() == files() == 1
    assert files(steps=2) == 2
    assert files(method="lsq+contrastive") == 3
    assert files(bits=Bits(4)) == 4
    assert files(scope="vision") == 5
    assert files(data=replace(calibration, templates=["a {}."])) == 6
    assert files(data=replace(calibration, images=calibration.images.first_evenly(39))) == 7
    other = tiny.copy()
    with torch.no_grad():
        other.module.visual.conv1.weight[0, 0, 0, 0] += 1e-6
    assert files(other) == 8


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(tiny, calibration, tmp_path, damage):
    first = quantize(tiny, calibration, steps=2, checkpoints=tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    path.write_bytes(content)
    if damage == "other":
        torch.save({"tensors": {}, "done": 3, "optimizer": None}, path)
    with pytest.warns(CheckpointWarning, match="training starts again"):
        again = quantize(tiny, calibration, steps=2, checkpoints=tmp_path)
    assert same(first, again)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(tiny, calibration, steps=2, checkpoints=tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_warned_of(tiny, calibration, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(CheckpointWarning, match="no checkpoint was written"):
        quantize(tiny, calibration, steps=1, checkpoints=tmp_path / "file")


def test_nothing_is_left_behind_by_a_write_that_fails(tmp_path, monkeypatch):
    def full(held, path):
        path.write_bytes(b"half")
        raise RuntimeError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(CheckpointWarning, match="no space left"):
        Checkpoint(tmp_path / "run.pt").save({}, 1, None)
    assert list(tmp_path.iterdir()) == []


# Architectures


def check_coverage(clip: Clip, calibration: Calibration, method: str) -> None:
    few = replace(calibration, images=calibration.images.first_evenly(4))
    quantized = quantize(clip, few, method, Bits(3, 8), steps=2, batch=2)
    found = coverage.measure(clip, quantized, Bits(3, 8), "both")
    assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())


@pytest.mark.parametrize("method", ["lsq", "omniquant"])
def test_every_architecture_is_covered(architecture, calibration, method):
    check_coverage(architecture, calibration, method)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("lsq", "omniquant")])
@pytest.mark.parametrize("architecture", ["convnext", "siglip-like"], indirect=True)
def test_every_method_covers(architecture, calibration, method):
    check_coverage(architecture, calibration, method)
