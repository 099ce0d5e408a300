"""OmniQuant, block by block."""

import warnings

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import blocks, grid, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.parameters import OmniQuant, RoundingParameters
from pytest_qreliab.quantizers.post_training import procedure
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import omniquant

W2, W3A8 = Format.of("w2"), Format.of("w3a8")


def request_of(bits, calibration, scope="both", **given) -> Request:
    return Request(bits=bits, scope=scope, parameters=OmniQuant(**given), calibration=calibration)


def test_every_block_learns(tiny, calibration, monkeypatch):
    first, last = [], []

    def spy(objective, path, original=omniquant._train):
        first.append(float(objective(0).detach()))
        original(objective, path)
        last.append(float(objective(0).detach()))

    monkeypatch.setattr(omniquant, "_train", spy)
    omniquant.omniquant(tiny, request_of(W2, calibration, "text", steps=8, batch=40))
    assert len(first) == len(tiny.module.transformer.resblocks)
    assert all(after < before for before, after in zip(first, last, strict=True))


def test_it_errs_less_than_rounding_over_the_same_kind_of_range(tiny, calibration, pixels, train, feature_error):
    parameters = RoundingParameters(symmetric=False)
    request = Request(bits=W2, scope="text", parameters=parameters, calibration=calibration)
    rounded = procedure.quantize(tiny, request, rounder=procedure.nearest(grid.mse))
    trained = train(tiny, calibration, "omniquant", W2, scope="text", steps=10)
    assert feature_error(trained, tiny, pixels) < 0.7 * feature_error(rounded, tiny, pixels)


def test_first_scales_are_smoothquants_and_shifts_the_middle(tiny, calibration):
    request = request_of(W3A8, calibration, "vision")
    clip, layers, request = engine_layers.prepare_layers(tiny, request)
    twin, twins = engine_layers.unpack_layers(tiny, "vision")
    transformed = omniquant._transformed(clip, layers, request)
    name = "visual.transformer.resblocks.0.attn.q_proj"
    seen = observers.observe(clip, {name: layers[name]}, request, observers.SampleObserver)[name].all()
    walks = blocks.walk(clip, layers, request), blocks.walk(twin, twins, request)
    for block, wanted in zip(*walks, strict=True):
        if name in block.layers:
            before = {key: layer.weight.detach().clone() for key, layer in block.layers.items()}
            omniquant._attach(block, wanted, transformed, request)
            break
    transform = layers[name].parametrizations.weight[0].transform.now()
    assert bool((transform.shift >= seen.amin(0) - 1e-5).all() & (transform.shift <= seen.amax(0) + 1e-5).all())
    weight = torch.cat([before[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]).abs().amax(0)
    assert bool((transform.scale >= (seen.abs().amax(0) / weight).sqrt() * (1 - 1e-4)).all())  # of a sample
    names = {key for key in block.layers if hasattr(block.layers[key].parametrizations.weight[0].transform, "now")}
    prefix = "visual.transformer.resblocks.0"
    assert set(block.layers) - names == {f"{prefix}.mlp.c_proj"}


def test_transforms_are_exact_before_rounding(architecture, calibration, noise):
    """All of a model's blocks with random scales and shifts, and grids too fine to round."""
    pixels, texts = noise(architecture), ["a handwritten two.", "9"]
    request = Request(bits=Format.of("w8"), scope="both", parameters=OmniQuant(images=4), calibration=calibration)
    clip, layers, request = engine_layers.prepare_layers(architecture, request)
    transformed = omniquant._transformed(clip, layers, request)
    count = 0
    for block in blocks.walk(clip, layers, request):
        before = {name: layer.weight.detach().clone() for name, layer in block.layers.items()}
        omniquant._attach(block, block, transformed, request)
        with torch.no_grad():
            for layer in block.layers.values():
                by = layer.parametrizations.weight[0]
                if by.transform is not None:
                    count += 1
                    nn.init.normal_(by.transform.log_scale, std=0.3)
                    if by.transform.moved is not None:
                        nn.init.normal_(by.transform.moved, std=0.3)
        for layer in block.layers.values():
            by = layer.parametrizations.weight[0]
            by.forward = by._transformed
        omniquant.bake(block.layers)
        assert all(layer.weight.shape == before[name].shape for name, layer in block.layers.items())
    assert count > 0 or architecture.name == "resnet"
    for ours, theirs in (
        (clip.encode_image(pixels), architecture.encode_image(pixels)),
        (clip.encode_text(texts), architecture.encode_text(texts)),
    ):
        unit = torch.nn.functional.normalize
        assert float((unit(ours, dim=-1) - unit(theirs, dim=-1)).norm(dim=-1).max()) < 1e-4


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_inputs_are_rounded_as_asked(tiny, calibration, activations, train):
    quantized = train(tiny, calibration, "omniquant", W3A8, scope="text", steps=1, activations=activations)
    hooks = [hook for m in quantized.module.modules() for hook in m._forward_pre_hooks.values()]
    assert len(hooks) == len(engine_layers.unpack_layers(tiny, "text")[1])
    levels = hooks[5].round(torch.linspace(-3, 3, 5000)[:, None].expand(-1, 64)).unique()
    assert (len(levels) <= 256) == (activations == "static")


def test_a_model_of_nan_is_refused(tiny, calibration):
    broken = tiny.copy()
    with torch.no_grad():
        broken.module.visual.transformer.resblocks[0].mlp.c_fc.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinity in the full-precision outputs of visual\.transformer"):
        omniquant.omniquant(broken, request_of(W2, calibration, steps=1))


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_result(architecture_of, calibration, tmp_path, train, same):
    clip = architecture_of("vit")
    whole = train(clip, calibration, "omniquant", W3A8, steps=6)
    calls = []

    def kill(done):
        calls.append(done)
        if sum(calls) >= 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(clip, calibration, "omniquant", W3A8, steps=6, checkpoints=tmp_path, advance=kill)
    files = set(tmp_path.iterdir())
    assert files
    before = {path: path.read_bytes() for path in files}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = train(clip, calibration, "omniquant", W3A8, steps=6, checkpoints=tmp_path)
    assert same(resumed, whole)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_progress_is_the_number_of_steps_whatever_the_number_of_blocks(architecture_of, calibration, train):
    advances = []
    train(architecture_of("vit"), calibration, "omniquant", W2, steps=4, advance=advances.append)
    assert sum(advances) == 4
    assert min(advances) >= 0
