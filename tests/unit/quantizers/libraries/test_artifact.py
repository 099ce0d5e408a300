import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import functional as F

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries import artifact


def test_what_was_not_rounded_is_shown(tiny, tmp_path, load, rounded):
    state = rounded(tiny, 4)
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    state[name] = tiny.module.state_dict()[name].clone()
    save_file(state, tmp_path / "model.safetensors")
    clip = load(tiny, tmp_path / "model.safetensors")
    missing = coverage.measure(tiny, clip, Format.integers(4), "both").missing
    assert missing == tuple(f"visual.transformer.resblocks.0.attn.{x}_proj.weight" for x in "qkv")


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"epoch": 3, "model": state},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    ],
)
def test_what_training_puts_around_a_state_dict_is_taken_off(tiny, tmp_path, load, rounded, wrapped):
    state = rounded(tiny, 4)
    torch.save(wrapped(state), tmp_path / "model.pt")
    found = load(tiny, tmp_path / "model.pt").module.state_dict()
    assert torch.equal(found["visual.conv1.weight"], state["visual.conv1.weight"])


def test_a_part_of_a_foreign_model_may_have_the_logit_scale(tmp_path):
    """Its name is then no prefix that all others have to share."""
    weight = torch.arange(32.0).remainder(15).sub(7).reshape(2, 16)
    torch.save({"clip.logit_scale": torch.tensor(4.6), "head.weight": weight}, tmp_path / "model.pt")
    assert artifact.inspect(tmp_path / "model.pt", "both") == Format.integers(4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_weights_may_be_stored_in_half_precision(tiny, tmp_path, load, rounded, dtype):
    bits = Format.integers(8 if dtype == torch.float16 else 4)
    torch.save(
        {name: value.to(dtype) for name, value in rounded(tiny, bits.weights.bits).items()}, tmp_path / "half.pt"
    )
    quantized = load(tiny, tmp_path / "half.pt", bits=bits)
    assert coverage.measure(tiny, quantized, bits, "both").missing == ()


def test_files_that_are_not_quantized(tiny, towers, tmp_path, refused):
    save_file(tiny.module.state_dict(), tmp_path / "model.safetensors")
    refused(
        tiny,
        tmp_path / "model.safetensors",
        "is not quantized in scope 'both': none of its weight matrices lies on grids",
    )
    torch.save({name: value.bfloat16() for name, value in tiny.module.state_dict().items()}, tmp_path / "half.pt")
    refused(tiny, tmp_path / "half.pt", "is not quantized")
    refused(tiny, towers / "full", "is not quantized in scope 'both': no matrix product or convolution .* integers")


def test_damaged_files(tiny, towers, tmp_path, refused, rounded):
    save_file(rounded(tiny, 4), tmp_path / "model.safetensors")
    torch.save(rounded(tiny, 4), tmp_path / "model.pt")
    shutil.copytree(towers / "dynamic", tmp_path / "towers")
    for name in ("model.safetensors", "model.pt", "towers/text.onnx"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        refused(tiny, tmp_path / name.partition("/")[0], "is damaged or no (safetensors|PyTorch|ONNX) file")
    (tmp_path / "towers" / "text.onnx").write_bytes(b"")
    refused(tiny, tmp_path / "towers", "text.onnx is damaged or no ONNX file: it describes no graph")


def test_missing_and_unknown_files(tiny, towers, tmp_path, load, refused):
    refused(tiny, tmp_path / "no.pt", "does not exist")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    refused(tiny, tmp_path / "model.gguf", "the format '.gguf' is not one of .safetensors")
    shutil.copy(towers / "dynamic" / "visual.onnx", tmp_path)
    refused(tiny, tmp_path, r"text.onnx is missing; scope 'both' needs visual.onnx and text.onnx")
    assert load(tiny, tmp_path, "vision") is not None
    torch.save([torch.ones(2, 2)], tmp_path / "list.pt")
    refused(tiny, tmp_path / "list.pt", "holds a list, no state dict")


def test_files_of_another_architecture(tiny, architecture_of, towers, tmp_path, refused, rounded):
    other = architecture_of("vit")
    save_file(rounded(tiny, 4), tmp_path / "model.safetensors")
    refused(other, tmp_path / "model.safetensors", "of another architecture than vit: it has unknown .* tensors")
    refused(other, towers / "dynamic", "of another architecture than vit: its vision features .* 64|cannot run")
    state = rounded(tiny, 4)
    state["visual.proj"] = state["visual.proj"][:, :32].contiguous()
    save_file(state, tmp_path / "narrow.safetensors")
    refused(tiny, tmp_path / "narrow.safetensors", r"visual.proj has the shape \(64, 32\), not \(64, 64\)")
    del state["visual.proj"]
    save_file(state, tmp_path / "less.safetensors")
    refused(tiny, tmp_path / "less.safetensors", "it misses 1 tensors, visual.proj among them")


def test_other_bits_than_the_files_are_refused(tiny, tmp_path, load, rounded):
    save_file(rounded(tiny, 4), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"is w4 in scope 'both' of .*, not w8a8"):
        load(tiny, tmp_path / "model.safetensors", bits=Format.integers(8, 8))


class TwoTowers(nn.Module):
    """A model with names of its own, the first tower not called `visual`, and a layer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.photo, self.words, self.unused = nn.Linear(192, 32), nn.Linear(64, 32), nn.Linear(64, 3)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def encode_image(self, images):
        return self.photo(images.flatten(1))

    def encode_text(self, tokens):
        return self.words(tokens)


def two_towers() -> Clip:
    return Clip.wrap(
        TwoTowers(),
        preprocess=lambda image: F.to_tensor(image.resize((8, 8))) - 0.5,
        tokenizer=lambda texts: torch.stack(
            [torch.tensor([b / 255 for b in t.encode()[:64].ljust(64)]) for t in texts]
        ),
    )


@pytest.fixture
def foreign_file(tmp_path, rounded_rows):
    """Writes the state dict of `two_towers`, some towers rounded to some bits."""

    def write(**bits) -> Path:
        state = {name: value.clone() for name, value in two_towers().module.state_dict().items()}
        for tower, width in bits.items():
            state[f"{tower}.weight"] = rounded_rows(state[f"{tower}.weight"], width)
        state["logit_scale"] += 1
        torch.save(state, tmp_path / "foreign.pt")
        return tmp_path / "foreign.pt"

    return write


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
def test_a_scope_is_that_of_the_models_own_layout(foreign_file, quantize, load, prompts, scope):
    clip, path = two_towers(), foreign_file(photo=4, words=4)
    assert artifact.inspect(path, scope) == Format.integers(4)  # as a plan asks, which knows no model
    found, expected = load(clip, path, scope), quantize(clip, "minmax", Format.integers(4), scope)
    for encode, inputs in (("encode_image", IMAGES), ("encode_text", prompts)):
        assert torch.equal(getattr(found, encode)(inputs), getattr(expected, encode)(inputs))
    assert torch.equal(found.encode_image(IMAGES), clip.encode_image(IMAGES)) == (scope == "text")
    assert torch.equal(found.encode_text(prompts), clip.encode_text(prompts)) == (scope == "vision")
    assert coverage.measure(clip, found, Format.integers(4), scope).weights == 1.0
    # The logit scale is of no tower: it comes with the whole file alone.
    assert found.logit_scale == pytest.approx(np.exp(3.0 if scope == "both" else 2.0))


def test_a_tower_that_is_not_quantized_is_refused_in_its_scope(foreign_file, load, refused):
    path = foreign_file(words=4)
    assert load(two_towers(), path, "text") is not None
    with pytest.raises(InputError, match="is not quantized in scope 'vision': none of its weight matrices lies on"):
        load(two_towers(), path, "vision", Format.integers(4))


def test_towers_of_different_bits_are_refused_in_a_scope_until_they_are_saved_alone(foreign_file, load, tmp_path):
    path = foreign_file(photo=8, words=4)
    assert artifact.inspect(path, "text") == Format.integers(8)  # the model is not known yet
    with pytest.raises(
        InputError, match=r"is w4 in scope 'text' of .*, not w8, .* save a state dict of each tower alone"
    ):
        load(two_towers(), path, "text", Format.integers(8))
    words = {name: value for name, value in torch.load(path).items() if name.startswith("words.")}
    torch.save(words, tmp_path / "words.pt")
    assert artifact.inspect(tmp_path / "words.pt", "text") == Format.integers(4)
    assert load(two_towers(), tmp_path / "words.pt", "text") is not None
