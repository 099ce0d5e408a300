"""Forward passes: batches that fit the memory, prompts without padding, and gratings."""

import numpy as np
import pytest
import torch
from open_clip.transformer import Transformer

from pytest_qreliab.config.formats import integer
from pytest_qreliab.data.batches import batches
from pytest_qreliab.data.sources.builtin import digits
from pytest_qreliab.embedding import forward
from pytest_qreliab.embedding.forward import BatchSize
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.engine.grid import Grid, Scheme


class Narrow:
    """Runs out of memory beyond so many images."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, []

    def __call__(self, batch):
        self.taken.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return batch * 2


def test_the_batch_is_halved_until_it_fits_and_stays_so():
    size, narrow = BatchSize(64), Narrow(20)
    found = [part for _ in range(2) for _, part in size.run(narrow, torch.arange(50))]
    assert torch.equal(torch.cat(found), torch.arange(50).repeat(2) * 2)
    assert size.value == 12  # 50 is too much, so is 25
    assert narrow.taken == [50, 25, 12, 12, 12, 12, 2, 12, 12, 12, 12, 2]


def test_a_model_that_leaves_no_room_for_one_image_is_an_error():
    with pytest.raises(InputError, match="does not hold the model and one image"):
        list(BatchSize(4).run(Narrow(0), torch.arange(5)))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        list(BatchSize(4).run(broken, torch.arange(5)))


@pytest.fixture
def seen(monkeypatch):
    """The number of tokens in every pass through a transformer."""
    lengths, transform = [], Transformer.forward

    def noting(self, x, *args, **more):
        lengths.append(x.shape[1])
        return transform(self, x, *args, **more)

    monkeypatch.setattr(Transformer, "forward", noting)
    return lengths


def test_padding_is_left_out_where_that_changes_nothing(tiny, seen):
    texts = [["a handwritten seven.", "nine"], ["a much longer prompt of a zero", "0"]]
    found = forward.classifier(tiny, texts, BatchSize(64))
    assert seen[-1] == len("a much longer prompt of a zero") + 2 < tiny.module.context_length
    whole = [torch.nn.functional.normalize(tiny.encode_text(of), dim=-1).mean(0) for of in texts]
    expected = torch.nn.functional.normalize(torch.stack(whole), dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert tiny.module.positional_embedding.shape[0] == tiny.module.context_length == len(tiny.module.attn_mask)


def test_padding_stays_where_a_range_is_taken_over_it(tiny):
    clip = tiny.copy()

    def over_all_tokens(module, args):
        return (args[0] / args[0].abs().amax() * args[0].shape[1],)

    clip.module.ln_final.register_forward_pre_hook(over_all_tokens)
    clip.module.ln_final.weight.data.mul_(1 + torch.rand(64))
    clip.module.transformer.resblocks[0].register_forward_pre_hook(over_all_tokens)
    found = forward.classifier(clip, [["one"], ["two"]], BatchSize(64))
    expected = torch.nn.functional.normalize(clip.encode_text(["one", "two"]), dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


class OverAllTokens(torch.nn.Linear):
    """Rounds its input to a range over all tokens, which the first one sets in most prompts."""

    def forward(self, x):
        step = x.abs().amax() / 7
        return super().forward((x / step).round() * step)


def strange_class(layer):
    layer.__class__ = OverAllTokens


def strange_hook(layer):
    layer.register_forward_pre_hook(lambda layer, args: None)


def strange_output(layer):
    layer.register_forward_hook(lambda layer, args, out: None)


def strange_rounding(layer):
    input_quantizer.ensure_input_quantizer(layer).round = lambda x: (x / x.amax() * 7).round() * x.amax() / 7


def strange_forward(layer):
    layer.forward = lambda x, forward=layer.forward: forward(x)


@pytest.mark.parametrize("make", [strange_class, strange_hook, strange_output, strange_rounding, strange_forward])
def test_padding_stays_where_tokens_are_not_known_to_be_taken_one_by_one(tiny, seen, make):
    """Prompts that were tried may not show it: a range over all tokens is in most of them that of the first one."""
    clip = tiny.copy()
    make(clip.module.transformer.resblocks[0].mlp.c_fc)
    forward.classifier(clip, [["one"], ["two"]], BatchSize(64))
    assert set(seen) == {tiny.module.context_length}


@pytest.mark.parametrize(
    "rounding",
    [Grid(torch.tensor(0.1), -127, 127, integer(8)).round, input_quantizer.DynamicQuantizer(Scheme(number=integer(8)))],
)
def test_padding_is_left_out_of_rounded_prompts(tiny, seen, rounding):
    clip = tiny.copy()
    input_quantizer.ensure_input_quantizer(clip.module.transformer.resblocks[0].mlp.c_fc).round = rounding
    forward.classifier(clip, [["one"], ["two"]], BatchSize(64))
    assert seen[-1] == len("one") + 2


def test_gratings_have_the_frequency_and_the_strength_that_they_are_said_to_have():
    angles, phases = np.array([0.0, np.pi / 2]), np.array([0.3, 1.2])
    found = forward._grating((32, 32), 1 / 4, angles, phases).numpy()[:, 0]
    assert np.sqrt((found**2).mean(axis=(1, 2))) == pytest.approx(1, rel=1e-6)
    power = np.abs(np.fft.fft2(found)) ** 2
    assert {tuple(at) for at in np.argwhere(power[0] > 1)} == {(0, 8), (0, 24)}
    assert {tuple(at) for at in np.argwhere(power[1] > 1)} == {(8, 0), (24, 0)}


def test_sensitivity_is_the_relative_change_of_a_towers_features(tiny, monkeypatch):
    """Of a tower that keeps the sums over 4 x 4 pixels, which see low frequencies and not those of 1/4."""
    images = digits("test").sampled(20, 0)

    def pooled(self, batch):
        return torch.nn.functional.avg_pool2d(batch, 4).flatten(1) + 5

    monkeypatch.setattr(type(tiny), "encode_image", pooled)
    found = forward.sensitivity(tiny, batches(images, tiny.preprocess), BatchSize(64))
    assert found.shape == (20, 3)
    low, mid, high = found.mean(axis=0)
    assert low > 3 * mid
    assert low > 3 * high
    monkeypatch.setattr(type(tiny), "encode_image", lambda self, batch: torch.ones(len(batch), 4))
    assert not forward.sensitivity(tiny, batches(images, tiny.preprocess), BatchSize(64)).any()
