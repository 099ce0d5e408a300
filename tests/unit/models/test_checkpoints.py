"""Checkpoint files: what is in them is read before the run, and what is no CLIP is refused by name."""

import io
import math
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import checkpoints, tiny_digits
from pytest_qreliab.models.checkpoints import load_state, read_checkpoint


@pytest.fixture
def state():
    """The names that any CLIP of open_clip has."""
    return {
        "logit_scale": torch.tensor(math.log(100)),
        "visual.proj": torch.arange(6.0).reshape(2, 3),
        "token_embedding.weight": torch.ones(4, 2),
    }


@pytest.fixture
def write(tmp_path):
    """Writes a checkpoint in the format of its suffix."""

    def write(content, name="weights.pt"):
        path = tmp_path / name
        save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
        return path

    return write


def assert_holds(path, state):
    found = read_checkpoint(path)
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert found.log_scale == pytest.approx(math.log(100), rel=1e-2)
    loaded = load_state(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    return found


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "ema.", "module._orig_mod.", "clip.model."])
def test_a_prefix_that_all_names_have_is_taken_off(write, state, prefix, suffix):
    path = write({f"{prefix}{name}": tensor for name, tensor in state.items()}, f"weights{suffix}")
    assert assert_holds(path, state).prefix == prefix


@pytest.mark.parametrize("key", ["state_dict", "model", "ema", "module", "model_state_dict"])
def test_the_only_state_dict_of_a_dictionary_is_taken(write, state, key):
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}
    path = write({"epoch": 3, "name": "run", "optimizer": optimizer, key: state}, "epoch_3.pt")
    assert assert_holds(path, state).inside == key


def test_a_prefix_inside_of_a_dictionary_is_taken_off(write, state):
    path = write({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
    assert assert_holds(path, state).prefix == "module."


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_logit_scale_is_read_alone_from_safetensors(write, state, dtype, shape):
    scale = state["logit_scale"].to(dtype).reshape(shape)
    path = write({**state, "logit_scale": scale}, "weights.safetensors")
    assert read_checkpoint(path).log_scale == float(scale)


def test_a_logit_scale_of_several_numbers_is_not_read(write, state):
    for name in ("weights.safetensors", "weights.pt"):
        path = write({**state, "logit_scale": torch.ones(3)}, name)
        assert read_checkpoint(path).log_scale is None


def test_the_parts_of_a_tower_may_have_logit_scales_of_their_own(write, state):
    more = {"visual.trunk.layers.0.attn.logit_scale": torch.ones(3)}
    prefixed = {f"model.{name}": tensor for name, tensor in {**state, **more}.items()}
    assert read_checkpoint(write(state | more)).prefix == ""
    assert read_checkpoint(write(prefixed, "other.pt")).prefix == "model."


def test_numbers_of_openais_archives_are_no_weights(write, state):
    numbers = {name: torch.tensor(224) for name in checkpoints.NO_WEIGHTS}
    assert_holds(write({**state, **numbers}), state)


def test_a_file_that_changed_is_read_again(write, state):
    path = write(state)
    assert read_checkpoint(path) is read_checkpoint(path)
    write({**state, "visual.more": torch.ones(500)})
    assert "visual.more" in read_checkpoint(path).shapes


def two(state):
    return {f"{part}.{name}": tensor for part in ("model", "ema") for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda s: {"model": s, "ema": s}, "holds several state dicts, model, ema; save one state_dict"),
        (lambda s: {"state_dict": s, "state_dict_ema": s}, "holds several state dicts, state_dict, state_dict_ema"),
        (two, "more than one model: names that begin with 'ema.', and with model.;"),
        (lambda s: {**s, **{f"ema.{n}": t for n, t in s.items()}}, "another model beside its own, under ema; take it"),
        (lambda s: {"epoch": 3}, "holds no state dict, only epoch"),
        (lambda s: {}, "holds no state dict, only an empty dictionary;"),
        (lambda s: [1, 2], "holds a list, no state dict"),
        (lambda s: {"nothing.weight": torch.ones(2)}, r"has no visual.*; its names begin with nothing"),
        (lambda s: {"visual.proj": torch.ones(2)}, "has no logit_scale; its names begin with visual"),
        (
            lambda s: {"logit_scale": s["logit_scale"], "vision_model.a": torch.ones(1), "text_model.a": torch.ones(1)},
            "is of transformers, not of open_clip; register it with Clip.wrap",
        ),
    ],
)
def test_what_does_not_hold_one_clip_is_refused(write, state, content, message):
    with pytest.raises(InputError, match=message):
        read_checkpoint(write(content(state)))


def test_the_original_names_of_mobile_clip_are_left_to_open_clip(write, state):
    names = {"logit_scale": state["logit_scale"], "image_encoder.a": torch.ones(1), "text_encoder.a": torch.ones(1)}
    assert read_checkpoint(write(names)).shapes.keys() == names.keys()


class Malicious:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def truncated(path):
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def code(path):
    torch.save({"a": Malicious()}, path)


def number_of_numpy(path):
    torch.save({"state_dict": {}, "best": np.float64(0.5)}, path)


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no checkpoint at all")


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "nothing")


def script(path):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    path.write_bytes(buffer.getvalue())


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 605143884\n")


def folder(path):
    path.mkdir()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore:.*TorchScript")
@pytest.mark.parametrize("read", [checkpoints.load_tensors, read_checkpoint])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "is damaged"),
        (empty, "is damaged or no PyTorch file: [^ ]"),
        (text, "is damaged"),
        (zipped, "is damaged"),
        (code, "holds print beside its weights, code which is never run; save its state_dict"),
        (number_of_numpy, "holds numpy.*scalar beside its weights"),
        (script, r"is a TorchScript archive, .* torch.save\(torch.jit.load\('weights.pt', .*@openai"),
        (pointer, "is a pointer of git-lfs .* git lfs pull"),
        (folder, "cannot be read: Is a directory"),
    ],
)
def test_files_that_cannot_be_used_are_refused_for_what_they_are(tmp_path, capsys, read, damage, message):
    path = tmp_path / "weights.pt"
    damage(path)
    with pytest.raises(InputError, match=rf"weights\.pt {message}"):
        read(path)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_a_pointer_of_git_lfs_is_named_in_every_format(tmp_path, name):
    pointer(tmp_path / name)
    with pytest.raises(InputError, match="git lfs pull"):
        read_checkpoint(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore:.*TorchScript")
def test_the_weights_of_a_torchscript_archive_are_taken_as_the_message_says(tmp_path, state, monkeypatch):
    """As OpenAI's originals hold them, with numbers beside."""

    class Archived(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit_scale = torch.nn.Parameter(state["logit_scale"])
            self.visual = torch.nn.Linear(2, 2)
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, x):
            return self.visual(x) * self.logit_scale

    model, path = Archived(), tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 2)), path)
    with pytest.raises(InputError, match="TorchScript") as error:
        read_checkpoint(path)
    statement = re.search(r"torch\.save\(.*?'weights\.pt'\)", str(error.value))
    monkeypatch.chdir(tmp_path)
    exec(statement[0], {"torch": torch})
    found = load_state(tmp_path / "weights.pt")
    assert found.keys() == {"logit_scale", "visual.weight", "visual.bias"}
    assert torch.equal(found["visual.weight"], model.visual.weight)


def test_one_part_of_a_checkpoint_says_how_to_join_all(write, state, tmp_path, monkeypatch):
    names = list(state)
    parts = [write({name: state[name]}, f"model-0000{i}-of-00003.safetensors") for i, name in enumerate(names, 1)]
    with pytest.raises(InputError, match="is one part of several; join them: ") as error:
        read_checkpoint(parts[0])
    monkeypatch.chdir(tmp_path)
    exec("import pathlib; " + str(error.value).partition("join them: ")[2])
    assert_holds(tmp_path / "joined.safetensors", state)


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"garbage" * 100])
def test_bad_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or no safetensors file"):
        read_checkpoint(path)


def test_truncated_safetensors_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(tiny_digits.WEIGHTS.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged or no safetensors file"):
        checkpoints.load_tensors(path)


def test_a_format_that_is_none_of_ours(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"'\.h5' is not one of"):
        read_checkpoint(tmp_path / "weights.h5")


def test_the_shipped_weights_are_read_as_safetensors_reads_them():
    expected = load_file(tiny_digits.WEIGHTS)
    found = read_checkpoint(tiny_digits.WEIGHTS)
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    assert found.log_scale == float(expected["logit_scale"])
    assert (found.prefix, found.inside) == ("", "")
