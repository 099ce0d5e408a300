import json

import open_clip
import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import loading, names, tiny_digits


def test_tiny_digits_is_an_open_clip_clip_below_eight_megabytes(tiny):
    assert type(tiny.module) is open_clip.CLIP
    assert tiny_digits.WEIGHTS.stat().st_size < 8e6
    assert all(not parameter.requires_grad for parameter in tiny.module.parameters())
    assert tiny.logit_scale == pytest.approx(float(tiny.module.logit_scale.exp()))
    assert tiny.logit_bias == 0.0


def test_damaged_weights_of_tiny_digits_are_refused(monkeypatch, tmp_path):
    damaged = bytearray(tiny_digits.WEIGHTS.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "w.safetensors").write_bytes(damaged)
    monkeypatch.setattr(tiny_digits, "WEIGHTS", tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="damaged"):
        loading.load_model(names.TINY_DIGITS)


def test_byte_tokenizer():
    tokens = tiny_digits.ByteTokenizer(6)(["ab", "é", "abcdefgh", ""])
    assert tokens.tolist() == [
        [256, 97, 98, 257, 0, 0],
        [256, 0xC3, 0xA9, 257, 0, 0],
        [256, 97, 98, 99, 100, 257],
        [256, 257, 0, 0, 0, 0],
    ]


def test_the_training_recipe_matches_the_released_model(tiny):
    config = json.loads((tiny_digits.FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    assert config["text_cfg"]["vocab_size"] == tiny_digits.ByteTokenizer.VOCABULARY
    assert tiny.tokenizer.context_length == config["text_cfg"]["context_length"]
