import shutil

import pytest
import torch
from safetensors.torch import save_file

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.inspection import coverage


def test_what_was_not_rounded_is_shown(tiny, tmp_path, load, rounded):
    state = rounded(tiny, 4)
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    state[name] = tiny.module.state_dict()[name].clone()
    save_file(state, tmp_path / "model.safetensors")
    clip = load(tiny, tmp_path / "model.safetensors")
    missing = coverage.measure(tiny, clip, Bits(4), "both").missing
    assert missing == tuple(f"visual.transformer.resblocks.0.attn.{x}_proj.weight" for x in "qkv")


def test_files_that_are_not_quantized(tiny, towers, tmp_path, refused):
    save_file(tiny.module.state_dict(), tmp_path / "model.safetensors")
    refused(tiny, tmp_path / "model.safetensors", "is not quantized in scope 'both': .* more than 256 values")
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
    refused(tiny, tmp_path / "list.pt", r"holds no state dict: save state_dict\(\)")


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
    with pytest.raises(InputError, match="is w4, not w8a8"):
        load(tiny, tmp_path / "model.safetensors", bits=Bits(8, 8))
