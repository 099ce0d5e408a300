"""What may be registered as a model: a model, or what makes one."""

import pytest
import torch
from torch import nn

from pytest_qreliab import Clip
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import registered


class Towers(nn.Module):
    """Brings its own transform and tokenizer."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(3, 8), nn.Embedding(256, 8)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    def preprocess(self, image):
        return torch.full((3, 4, 4), image.size[0] / 100)

    def tokenizer(self, texts):
        return torch.tensor([ord(text[0]) for text in texts])

    def encode_image(self, images):
        return self.image(images.mean((2, 3)))

    def encode_text(self, tokens):
        return self.text(tokens)


class Runtime:
    """No torch module, and callable, but not to make a model."""

    def __init__(self) -> None:
        self.towers = Towers().requires_grad_(False)
        self.preprocess, self.tokenizer = self.towers.preprocess, self.towers.tokenizer
        self.encode_image, self.encode_text = self.towers.encode_image, self.towers.encode_text
        self.logit_scale = torch.tensor(3.0)

    def __call__(self):
        raise AssertionError


@pytest.mark.parametrize("make", [Towers, Towers(), lambda: Towers(), lambda: Clip.wrap(Towers()), Runtime(), Runtime])
def test_a_model_and_what_makes_one_are_loaded_under_the_name(make):
    clip = registered.load("mine", make)
    assert clip.name == "mine"
    assert clip.encode_text(["a", "b"]).shape == (2, 8)


def test_a_clip_is_taken_as_it_is_and_made_anew_where_a_function_makes_it():
    clip = Clip.wrap(Towers())
    assert registered.load("mine", clip).module is clip.module
    assert clip.name == ""
    assert registered.load("mine", Towers).module is not registered.load("mine", Towers).module


def told():
    raise InputError("the weights are missing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {}["weights"], r"^model 'mine': .* make it raised KeyError: 'weights' \(.*test_registered\.py:\d+\)$"),
        (told, r"^model 'mine': the weights are missing$"),
        (lambda: 3, r"^model 'mine': .* \(a int was given; see Clip\.wrap\)$"),
        (nn.Identity(), r"^model 'mine': .* \(a Identity was given; see Clip\.wrap\)$"),
    ],
)
def test_what_makes_no_model_is_told_with_the_name(make, message):
    with pytest.raises(InputError, match=message):
        registered.load("mine", make)
