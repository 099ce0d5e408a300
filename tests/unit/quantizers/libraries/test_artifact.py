import shutil

import pytest
import torch
from safetensors.torch import save_file

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries import artifact, optional
from pytest_qreliab.quantizers.libraries.artifact import inspect
from pytest_qreliab.quantizers.parameters import Artifact, OnnxRuntime, TorchAo
from pytest_qreliab.quantizers.request import Request


def load(clip, path, scope="both", bits=None):
    return artifact.quantize(clip, Request(bits or inspect(path, scope), scope, Artifact(path=str(path))))


def rounded_rows(weight, bits):
    rows = grid.rows(weight, "channel")
    return grid.from_rows(grid.fit_grid(*grid.minmax(rows, bits, True), bits, True).round(rows), weight)


def rounded(clip, bits):
    """The state dict of a model with rounded weights, packed as open_clip packs it."""
    state = {name: value.clone() for name, value in clip.module.state_dict().items()}
    for name, value in state.items():
        if value.ndim >= 2 and "embed" not in name:
            turned = name.endswith((".proj", "text_projection"))
            state[name] = rounded_rows(value.T, bits).T.contiguous() if turned else rounded_rows(value, bits)
    return state


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_weights_give_what_the_rounding_here_gives(tiny, quantize, tmp_path, noise, prompts, bits, suffix):
    path = tmp_path / f"model{suffix}"
    save_file(rounded(tiny, bits), path) if suffix == ".safetensors" else torch.save(rounded(tiny, bits), path)
    assert inspect(path, "both") == inspect(path, "vision") == Bits(bits)
    clip, expected = load(tiny, path), quantize(tiny, "minmax", Bits(bits))
    torch.testing.assert_close(clip.encode_image(noise(tiny)), expected.encode_image(noise(tiny)))
    torch.testing.assert_close(clip.encode_text(prompts), expected.encode_text(prompts))
    assert coverage.measure(tiny, clip, Bits(bits), "both").weights == 1.0
    vision = load(tiny, path, "vision")
    assert torch.equal(vision.encode_text(prompts), tiny.encode_text(prompts))
    torch.testing.assert_close(vision.encode_image(noise(tiny)), expected.encode_image(noise(tiny)))


def test_rounded_weights_may_be_unpacked_and_wrapped(tiny, quantize, tmp_path, noise):
    expected = quantize(tiny, "minmax", Bits(4))
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in expected.module.state_dict().items()}}, path)
    assert torch.equal(load(tiny, path).encode_image(noise(tiny)), expected.encode_image(noise(tiny)))


@pytest.mark.parametrize("architecture", ["resnet", "convnext-atto", "siglip-like"], indirect=True)
def test_every_architecture(architecture, tmp_path, error):
    save_file(rounded(architecture, 8), tmp_path / "model.safetensors")
    assert inspect(tmp_path / "model.safetensors", "both") == Bits(8)
    clip = load(architecture, tmp_path / "model.safetensors")
    assert 0 < max(error(architecture, clip)) < 0.05
    assert coverage.measure(architecture, clip, Bits(8), "both").weights == 1.0


def test_what_was_not_rounded_is_shown(tiny, tmp_path):
    state = rounded(tiny, 4)
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    state[name] = tiny.module.state_dict()[name].clone()
    save_file(state, tmp_path / "model.safetensors")
    clip = load(tiny, tmp_path / "model.safetensors")
    missing = coverage.measure(tiny, clip, Bits(4), "both").missing
    assert missing == tuple(f"visual.transformer.resblocks.0.attn.{x}_proj.weight" for x in "qkv")


@pytest.mark.parametrize("columns", [64, 1024])
@pytest.mark.parametrize("bits", range(2, 9))
def test_bits_of_values(bits, columns):
    weight = torch.randn(32, columns, generator=torch.Generator().manual_seed(0))
    assert artifact.value_bits(weight) is None
    assert artifact.value_bits(weight.bfloat16()) is None
    assert artifact.value_bits(rounded_rows(weight, bits)) == bits
    asymmetric = torch.fake_quantize_per_channel_affine(
        weight, torch.full((32,), 7 / 2**bits), torch.full((32,), 2 ** (bits - 1) + 0.0), 0, 0, 2**bits - 1
    )
    assert artifact.value_bits(asymmetric) == bits


def test_bits_of_uneven_levels():
    levels = torch.randn(16, generator=torch.Generator().manual_seed(0))
    assert artifact.value_bits(levels[torch.randint(0, 16, (32, 256))]) == 4
    assert artifact.value_bits(torch.ones(4, 9)) is None


# torchao


@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("bits", [Bits(8), Bits(4), Bits(8, 8), Bits(4, 8)])
def test_a_torchao_checkpoint(tiny, tmp_path, noise, bits, unpacked):
    pytest.importorskip("torchao", reason="the extra pytest-qreliab[torchao] is not installed")
    from torchao.quantization import quantize_

    from pytest_qreliab.quantizers.libraries import torchao

    expected = torchao.quantize(tiny, Request(bits, "both", TorchAo()))
    if not unpacked:
        expected = tiny.copy()
        quantize_(expected.module, torchao._integers(bits, None))
    path = tmp_path / "model.pt"
    torch.save(expected.module.state_dict(), path)
    assert inspect(path, "both") == bits
    clip = load(tiny, path)
    assert torch.equal(clip.encode_image(noise(tiny)), expected.encode_image(noise(tiny)))
    found = coverage.measure(tiny, clip, bits, "both")
    assert (found.matrices == 1.0) if unpacked else (0.6 < found.matrices < 0.8)
    missing = {name.rpartition(".attn.")[2] for name in found.missing}
    projections = {"in_proj_weight", "out_proj.weight", "visual.proj", "text_projection"}
    assert missing == {"visual.conv1.weight"} | (set() if unpacked else projections)


# ONNX


@pytest.fixture(scope="module")
def towers(tiny, tmp_path_factory):
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package, reason="the extra pytest-qreliab[onnxruntime] is not installed")
    from pytest_qreliab.quantizers.engine import layers
    from pytest_qreliab.quantizers.libraries import onnxruntime

    folder = tmp_path_factory.mktemp("towers")
    exported = {name: onnxruntime.export(layers.unpack_layers(tiny, "both")[0], name) for name in ("visual", "text")}
    for bits, kind in ((Bits(8, 8), "dynamic"), (Bits(8), "weights"), (None, "full")):
        for name, graph in exported.items():
            file = folder / kind / f"{name}.onnx"
            file.parent.mkdir(exist_ok=True)
            request = Request(bits or Bits(8), "both", OnnxRuntime())
            file.write_bytes(onnxruntime._quantized(graph, name, tiny, request) if bits else graph)
    return folder


@pytest.mark.parametrize(("kind", "bits"), [("dynamic", Bits(8, 8)), ("weights", Bits(8))])
def test_onnx_towers(tiny, towers, noise, error, prompts, kind, bits):
    assert inspect(towers / kind, "both") == bits
    clip = load(tiny, towers / kind)
    assert max(error(tiny, clip)) < 0.1
    assert clip.encode_image_with_map(noise(tiny))[1].shape == tiny.encode_image_with_map(noise(tiny))[1].shape
    found = coverage.measure(tiny, clip, bits, "both")
    assert found.matrices == 1.0
    assert (found.weights == 1.0) == (bits == Bits(8, 8))
    assert (clip.logit_scale, clip.device) == (tiny.logit_scale, tiny.device)
    vision = load(tiny, towers / kind, "vision")
    assert torch.equal(vision.encode_text(prompts), tiny.encode_text(prompts))


def test_an_onnx_tower_of_one_batch_size_takes_any(tiny, towers, tmp_path, noise):
    import onnx

    model = onnx.load(towers / "dynamic" / "visual.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "visual.onnx")
    images = noise(tiny)
    found, expected = (load(tiny, path, "vision").encode_image(images) for path in (tmp_path, towers / "dynamic"))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=0.2)  # ranges are of the batch
    assert coverage.measure(tiny, load(tiny, tmp_path, "vision"), Bits(8, 8), "vision").weights == 1.0


# Bad files


def refused(clip, path, words, scope="both"):
    with pytest.raises(InputError, match=words):
        load(clip, path, scope)


def test_files_that_are_not_quantized(tiny, towers, tmp_path):
    save_file(tiny.module.state_dict(), tmp_path / "model.safetensors")
    refused(tiny, tmp_path / "model.safetensors", "is not quantized in scope 'both': .* more than 256 values")
    torch.save({name: value.bfloat16() for name, value in tiny.module.state_dict().items()}, tmp_path / "half.pt")
    refused(tiny, tmp_path / "half.pt", "is not quantized")
    refused(tiny, towers / "full", "is not quantized in scope 'both': no matrix product or convolution .* integers")


def test_damaged_files(tiny, towers, tmp_path):
    save_file(rounded(tiny, 4), tmp_path / "model.safetensors")
    torch.save(rounded(tiny, 4), tmp_path / "model.pt")
    shutil.copytree(towers / "dynamic", tmp_path / "towers")
    for name in ("model.safetensors", "model.pt", "towers/text.onnx"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        refused(tiny, tmp_path / name.partition("/")[0], "is damaged or no (safetensors|PyTorch|ONNX) file")
    (tmp_path / "towers" / "text.onnx").write_bytes(b"")
    refused(tiny, tmp_path / "towers", "text.onnx is damaged or no ONNX file: it describes no graph")


def test_missing_and_unknown_files(tiny, towers, tmp_path):
    refused(tiny, tmp_path / "no.pt", "does not exist")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    refused(tiny, tmp_path / "model.gguf", "the format '.gguf' is not one of .safetensors")
    shutil.copy(towers / "dynamic" / "visual.onnx", tmp_path)
    refused(tiny, tmp_path, r"text.onnx is missing; scope 'both' needs visual.onnx and text.onnx")
    assert load(tiny, tmp_path, "vision") is not None
    torch.save([torch.ones(2, 2)], tmp_path / "list.pt")
    refused(tiny, tmp_path / "list.pt", r"holds no state dict: save state_dict\(\)")


def test_files_of_another_architecture(tiny, architecture_of, towers, tmp_path):
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


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_code_in_a_checkpoint_is_never_run(tiny, tmp_path, capsys):
    torch.save({"weights": Evil()}, tmp_path / "model.pt")
    refused(tiny, tmp_path / "model.pt", "holds code beside its weights, which is never run")
    assert "code ran" not in capsys.readouterr().out


def test_other_bits_than_the_files_are_refused(tiny, tmp_path):
    save_file(rounded(tiny, 4), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="is w4, not w8a8"):
        load(tiny, tmp_path / "model.safetensors", bits=Bits(8, 8))


def test_a_torchao_checkpoint_without_torchao(tiny, tmp_path, monkeypatch):
    pytest.importorskip("torchao", reason="the extra pytest-qreliab[torchao] is not installed")
    from pytest_qreliab.quantizers.libraries import torchao

    path = tmp_path / "model.pt"
    torch.save(torchao.quantize(tiny, Request(Bits(8), "both", TorchAo())).module.state_dict(), path)
    monkeypatch.setattr(optional.importlib.util, "find_spec", lambda name: None)
    refused(tiny, path, r"needs the package torchao: pip install 'pytest-qreliab\[torchao\]'")
