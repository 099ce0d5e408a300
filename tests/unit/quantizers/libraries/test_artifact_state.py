import pytest
import torch
from safetensors.torch import save_file

from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries import artifact_state, optional
from pytest_qreliab.quantizers.libraries.artifact import inspect
from pytest_qreliab.quantizers.parameters import TorchAo
from pytest_qreliab.quantizers.request import Request


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_weights_give_what_the_rounding_here_gives(
    tiny, quantize, tmp_path, noise, prompts, bits, suffix, load, rounded
):
    path = tmp_path / f"model{suffix}"
    save_file(rounded(tiny, bits), path) if suffix == ".safetensors" else torch.save(rounded(tiny, bits), path)
    assert inspect(path, "both") == inspect(path, "vision") == Format.integers(bits)
    clip, expected = load(tiny, path), quantize(tiny, "minmax", Format.integers(bits))
    torch.testing.assert_close(clip.encode_image(noise(tiny)), expected.encode_image(noise(tiny)))
    torch.testing.assert_close(clip.encode_text(prompts), expected.encode_text(prompts))
    assert coverage.measure(tiny, clip, Format.integers(bits), "both").weights == 1.0
    vision = load(tiny, path, "vision")
    assert torch.equal(vision.encode_text(prompts), tiny.encode_text(prompts))
    torch.testing.assert_close(vision.encode_image(noise(tiny)), expected.encode_image(noise(tiny)))


def test_rounded_weights_may_be_unpacked_and_wrapped(tiny, quantize, tmp_path, noise, load):
    expected = quantize(tiny, "minmax", Format.integers(4))
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in expected.module.state_dict().items()}}, path)
    assert torch.equal(load(tiny, path).encode_image(noise(tiny)), expected.encode_image(noise(tiny)))


@pytest.mark.parametrize("architecture", ["resnet", "convnext-atto", "siglip-like"], indirect=True)
def test_every_architecture(architecture, tmp_path, error, load, rounded):
    save_file(rounded(architecture, 8), tmp_path / "model.safetensors")
    assert inspect(tmp_path / "model.safetensors", "both") == Format.integers(8)
    clip = load(architecture, tmp_path / "model.safetensors")
    assert 0 < max(error(architecture, clip)) < 0.05
    assert coverage.measure(architecture, clip, Format.integers(8), "both").weights == 1.0


@pytest.mark.parametrize("columns", [64, 1024])
@pytest.mark.parametrize("bits", range(2, 9))
def test_bits_of_values(bits, columns, rounded_rows):
    weight = torch.randn(32, columns, generator=torch.Generator().manual_seed(0))
    assert artifact_state.value_bits(weight) is None
    assert artifact_state.value_bits(weight.bfloat16()) is None
    assert artifact_state.value_bits(rounded_rows(weight, bits)) == bits
    asymmetric = torch.fake_quantize_per_channel_affine(
        weight, torch.full((32,), 7 / 2**bits), torch.full((32,), 2 ** (bits - 1) + 0.0), 0, 0, 2**bits - 1
    )
    assert artifact_state.value_bits(asymmetric) == bits


def test_bits_of_uneven_levels():
    levels = torch.randn(16, generator=torch.Generator().manual_seed(0))
    assert artifact_state.value_bits(levels[torch.randint(0, 16, (32, 256))]) == 4
    assert artifact_state.value_bits(torch.ones(4, 9)) is None


@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("bits", [Format.integers(8), Format.integers(4), Format.integers(8, 8), Format.integers(4, 8)])
def test_a_torchao_checkpoint(tiny, tmp_path, noise, bits, unpacked, load):
    pytest.importorskip("torchao", reason="the extra pytest-qreliab[torchao] is not installed")
    from torchao.quantization import quantize_

    from pytest_qreliab.quantizers.libraries import torchao

    expected = torchao.quantize(tiny, Request(bits=bits, scope="both", parameters=TorchAo()))
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


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_code_in_a_checkpoint_is_never_run(tiny, tmp_path, capsys, refused):
    torch.save({"weights": Evil()}, tmp_path / "model.pt")
    refused(tiny, tmp_path / "model.pt", "holds print beside its weights, code which is never run")
    assert "code ran" not in capsys.readouterr().out


def test_a_torchao_checkpoint_without_torchao(tiny, tmp_path, monkeypatch, refused):
    pytest.importorskip("torchao", reason="the extra pytest-qreliab[torchao] is not installed")
    from pytest_qreliab.quantizers.libraries import torchao

    path = tmp_path / "model.pt"
    torch.save(
        torchao.quantize(
            tiny, Request(bits=Format.integers(8), scope="both", parameters=TorchAo())
        ).module.state_dict(),
        path,
    )
    monkeypatch.setattr(optional.importlib.util, "find_spec", lambda name: None)
    refused(tiny, path, r"needs the package torchao: pip install 'pytest-qreliab\[torchao\]'")
