"""Whether a tower is the same: by its numbers and its code, and not by what one input shows of it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import functional as F

from pytest_qreliab.config.formats import Format
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.same_tower import same_tower
from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.request import Request

TOWERS = ("vision", "text")


class Head(nn.Module):
    """A linear head on pixels and one on the bytes of a prompt; what it reads as 0 hides its weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.photo, self.words = nn.Linear(192, 16), nn.Linear(32, 16)
        self.dim = nn.Linear(192, 16)  # for dim images alone

    def encode_image(self, x):
        x = x.flatten(1)
        return torch.where(x.mean(1, keepdim=True) < 0.2, self.dim(x), self.photo(x))

    def encode_text(self, tokens):
        return self.words(tokens)


def without_normalisation(image):
    return F.to_tensor(image.convert("RGB").resize((8, 8)))


def byte_tokens(texts):
    return torch.stack([torch.tensor([b / 255 for b in text.encode()[:32].ljust(32, b"\0")]) for text in texts])


def head(**options) -> Clip:
    given = {"preprocess": without_normalisation, "tokenizer": byte_tokens, "logit_scale": 10.0} | options
    return Clip.wrap(Head(), **given)


def quantize(clip: Clip, scope: str, quantizer: str = "minmax", bits: str = "w2") -> Clip:
    recipe = Catalog().recipe(quantizer)
    return recipe.quantize(clip, Request(bits=Format.recorded(bits), scope=scope, parameters=recipe.parameters))


def shared(clip: Clip, full: Clip) -> list[str]:
    return [tower for tower in TOWERS if same_tower(clip, full, tower)]


@pytest.mark.parametrize(("scope", "left"), [("vision", ["text"]), ("text", ["vision"]), ("both", [])])
def test_a_quantizer_leaves_the_tower_out_of_scope_the_same(tiny, scope, left):
    assert shared(quantize(tiny, scope), tiny) == left
    foreign = head()
    assert shared(quantize(foreign, scope), foreign) == left
    assert shared(tiny, tiny) == shared(tiny.copy(), tiny) == shared(foreign.copy(), foreign) == list(TOWERS)


@pytest.mark.parametrize(("quantizer", "bits"), [("torchao", "w8"), ("bitsandbytes", "w8a8")])
def test_a_library_leaves_the_tower_out_of_scope_the_same(tiny, quantizer, bits):
    pytest.importorskip(quantizer, reason=f"the extra pytest-qreliab[{quantizer}] is not installed")
    assert shared(quantize(tiny, "vision", quantizer, bits), tiny) == ["text"]
    assert shared(quantize(tiny, "text", quantizer, bits), tiny) == ["vision"]


def test_a_ruined_layer_that_black_and_padding_hide_is_seen():
    full = head()
    assert not torch.equal(full.module.photo.weight, quantize(full, "vision").module.photo.weight)
    for weight in (full.module.photo, full.module.dim):
        assert bool((weight.weight != 0).all())
    black, padding = torch.zeros(1, 3, 8, 8), torch.zeros(1, 32)
    broken = quantize(full, "both")
    assert torch.equal(broken.encode_image(black), full.encode_image(black))
    assert torch.equal(broken.module.encode_text(padding), full.module.encode_text(padding))
    assert shared(broken, full) == []


def test_a_layer_that_sees_only_zeros_is_seen():
    full = head(preprocess=lambda image: torch.zeros(3, 8, 8), tokenizer=lambda texts: torch.zeros(len(texts), 32))
    broken = full.copy()
    broken.module.photo.weight.mul_(2)
    broken.module.words.weight.mul_(2)
    assert torch.equal(broken.encode_text(["a cat"]), full.encode_text(["a cat"]))
    assert shared(broken, full) == []


def test_one_changed_number_anywhere_is_another_tower(tiny):
    for tower, prefix in (("vision", "visual."), ("text", "transformer.")):
        names = [name for name, _ in tiny.module.named_parameters() if name.startswith(prefix)]
        for name in (names[0], names[len(names) // 2], names[-1]):
            other = tiny.copy()
            parameter = other.module.get_parameter(name)
            parameter.view(-1)[-1] = parameter.view(-1)[-1] * 1.001 + 1e-12
            assert tower not in shared(other, tiny), name
    buffer = tiny.copy()
    buffer.module.attn_mask[0, 1] = 0
    assert shared(buffer, tiny) == ["vision"]


def hooked(clip):
    input_quantizer.ensure_input_quantizer(clip.module.photo).round = torch.round


def forward_hooked(clip):
    clip.module.photo.register_forward_hook(lambda layer, args, out: out)


def parametrized(clip):
    nn.utils.parametrize.register_parametrization(clip.module.photo, "weight", nn.Identity())


def another_class(clip):
    clip.module.photo.__class__ = type("Linear", (nn.Linear,), {})


def another_forward(clip):
    clip.module.photo.forward = lambda x: x[:, :16]


def another_encode(clip):
    clip.module.encode_image = lambda x: x.flatten(1)[:, :16]


def in_half(clip):
    clip.module.photo.weight.data = clip.module.photo.weight.data.double()


def another_attribute(clip):
    clip.module.photo.levels = 4


def in_training(clip):
    clip.module.photo.train()


@pytest.mark.parametrize(
    "change",
    [
        hooked,
        forward_hooked,
        parametrized,
        another_class,
        another_forward,
        another_encode,
        in_half,
        another_attribute,
        in_training,
    ],
)
def test_the_same_weights_computed_otherwise_are_another_tower(change):
    full = head()
    other = full.copy()
    change(other)
    assert "vision" not in shared(other, full)


def test_another_preprocessing_tokenizer_or_encoding_is_another_tower():
    full = head()
    assert shared(replace(full, preprocess=lambda image: without_normalisation(image)), full) == ["text"]
    assert shared(replace(full, tokenizer=lambda texts: byte_tokens(texts)), full) == ["vision"]
    assert shared(head(), full) == []  # wrapped again: its functions are others
    layout = replace(full.layout, image_encoder=lambda module, x: module.encode_image(x))
    assert shared(replace(full, layout=layout), full) == []


def test_a_refitted_logit_scale_is_no_part_of_a_tower(tiny):
    for full in (tiny, head()):
        other = quantize(full, "vision")
        other.set_logit_scale(3.0)
        assert shared(other, full) == ["text"]


def test_weights_that_only_some_inputs_use_count():
    full = head()
    other = full.copy()
    other.module.dim.weight.mul_(2)
    assert shared(other, full) == ["text"]


class WithThings(Head):
    """Holds what a model of one's own may hold beside its weights."""

    def __init__(self, thing) -> None:
        super().__init__()
        self.thing = thing


class Plain:
    def __init__(self, value) -> None:
        self.value, self.itself = value, self

    def method(self) -> None:
        pass


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value) -> None:
        self.value = value


def with_thing(thing) -> Clip:
    return Clip.wrap(WithThings(thing), without_normalisation, byte_tokens, logit_scale=10.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: value,
        lambda value: {"a": [value, (value, {value})]},
        lambda value: partial(torch.add, value),
        lambda value: torch.tensor([value]),
        lambda value: np.array([value, 1]),
        Plain,
        lambda value: Plain(value).method,
        lambda value: [nn.Linear(value, 1, bias=False)],  # not registered, and so not among the parameters
    ],
    ids=["number", "container", "partial", "tensor", "array", "object", "method", "hidden-module"],
)
def test_what_a_model_holds_is_compared_all_the_way_down(make):
    full = with_thing(make(2))
    other = full.copy()
    assert shared(other, full) == list(TOWERS)
    other.module.thing = make(3)
    assert shared(other, full) == []


def test_what_cannot_be_looked_into_counts_as_another_tower():
    full = with_thing(Slotted(2))
    assert shared(full.copy(), full) == []
    assert shared(full, full) == list(TOWERS)
