"""State dicts in the packed formats of other tools."""

from pathlib import Path

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries import artifact, packed_states
from pytest_qreliab.quantizers.parameters import BitsAndBytes
from pytest_qreliab.quantizers.request import Request

FILE = Path("model.pt")
EIGHT = torch.ones(4, 8, dtype=torch.int8)


def int8_state(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """A Linear as bitsandbytes stores it: the formula of its documentation."""
    scales = weight.abs().amax(1)
    return {
        "fc.weight": (weight / scales[:, None] * 127).round().to(torch.int8),
        "fc.SCB": scales,
        "fc.weight_format": torch.tensor(0, dtype=torch.uint8),
        "fc.bias": torch.ones(len(weight)),
    }


def test_int8_weights_of_bitsandbytes_become_the_floats_that_they_stand_for():
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    found = packed_states.readable(FILE, int8_state(weight))
    assert found.keys() == {"fc.weight", "fc.bias"}
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((found["fc.weight"] - weight).abs() <= step * 0.5001).all())
    torch.testing.assert_close(found["fc.weight"] / step, (weight / step).round())


def test_a_model_with_layers_of_bitsandbytes_is_w8_and_errs_by_their_rounding_alone(tiny, tmp_path, load, noise, error):
    library = pytest.importorskip("bitsandbytes", reason="the extra pytest-qreliab[bitsandbytes] is not installed")
    from pytest_qreliab.quantizers.libraries import bitsandbytes

    kernels = bitsandbytes.quantize(tiny, Request(bits=Format.integers(8, 8), scope="both", parameters=BitsAndBytes()))
    state = kernels.module.state_dict()
    assert any(name.endswith(packed_states.SCALES) for name in state)
    torch.save(state, tmp_path / "model.pt")
    assert artifact.inspect(tmp_path / "model.pt", "both") == Format.integers(8)
    clip = load(tiny, tmp_path / "model.pt")
    assert 0 < max(error(tiny, clip)) < 0.02
    layer = "visual.transformer.resblocks.0.mlp.c_fc"
    expected = library.functional.int8_vectorwise_dequant(state[f"{layer}.weight"], state[f"{layer}.SCB"])
    torch.testing.assert_close(clip.module.get_submodule(layer).weight, expected.float())
    assert coverage.measure(tiny, clip, Format.integers(8), "both").matrices == 1.0


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["weight", "weight.absmax", "weight.quant_state.bitsandbytes__nf4"],
            "4-bit weights of bitsandbytes .* quantizer b",
        ),
        (["qweight", "qzeros", "scales", "g_idx"], "packed weights of GPTQ"),
        (["qweight", "qzeros", "scales"], "packed weights of AWQ or GPTQ"),
        (["weight_packed", "weight_scale", "weight_shape"], "compressed-tensors"),
        (["_packed_params.dtype", "_packed_params._packed_params", "scale"], "torch.ao.quantization"),
        (["weight._data", "weight._scale"], "optimum-quanto"),
        (["W_q", "meta"], "HQQ"),
        (["weight", "weight_scale"], "their scales beside them"),
        (["weight", "weight_scale_inv"], "their scales beside them"),
        (["_weight_qdata", "_weight_scale"], "torchao, taken apart"),
    ],
)
def test_formats_that_cannot_be_read_are_named_with_what_to_do(names, words):
    with pytest.raises(InputError, match=rf"artifact model.pt holds .*{words}") as told:
        packed_states.readable(FILE, {f"blocks.0.fc.{name}": EIGHT for name in names})
    assert "save the dequantized weights: floats, under the names" in str(told.value)
    assert any(f"blocks.0.fc.{name} shows" in str(told.value) for name in names)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"fc.weight": EIGHT}, "holds fc.weight as int8, and nothing that is known here to scale it"),
        ({"fc.SCB": torch.ones(4)}, "int8 weights of bitsandbytes, and those of fc are not in rows"),
        ({"fc.weight": EIGHT.float(), "fc.SCB": torch.ones(4)}, "those of fc are not in rows"),
        ({"fc.weight": EIGHT, "fc.SCB": torch.ones(4), "fc.weight_format": torch.tensor(2)}, "are not in rows"),
    ],
)
def test_integers_without_a_scale_are_refused(state, words):
    with pytest.raises(InputError, match=words):
        packed_states.readable(FILE, state)


def test_a_plain_state_dict_is_left_as_it_is():
    state = {
        "fc.weight": EIGHT.float(),
        "positions": torch.arange(8)[None],
        "norm.num_batches_tracked": torch.tensor(3),
    }
    found = packed_states.readable(FILE, state)
    assert found.keys() == state.keys()
    assert all(found[name] is value for name, value in state.items())


def test_a_packed_file_is_refused_before_the_model_is_known(tmp_path):
    torch.save({"visual.fc.qweight": EIGHT, "visual.fc.qzeros": EIGHT}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="packed weights of AWQ or GPTQ"):
        artifact.inspect(tmp_path / "model.pt", "both")
