"""Artifacts on disk, and how they are loaded."""

import pytest

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.libraries import artifact
from pytest_qreliab.quantizers.parameters import Artifact, OnnxRuntime
from pytest_qreliab.quantizers.request import Request


@pytest.fixture(scope="session")
def load():
    """Loads an artifact beside its original, with the bits of the file unless others are given."""

    def quantize(clip, path, scope="both", bits=None):
        bits = bits or artifact.inspect(path, scope, clip.in_scope)
        return artifact.quantize(clip, Request(bits=bits, scope=scope, parameters=Artifact(path=str(path))))

    return quantize


@pytest.fixture(scope="session")
def refused(load):
    """Checks that an artifact is refused with these words."""

    def check(clip, path, words, scope="both"):
        with pytest.raises(InputError, match=words):
            load(clip, path, scope)

    return check


@pytest.fixture(scope="session")
def rounded(rounded_rows):
    """The state dict of a model with rounded weights, packed as open_clip packs it."""

    def round_state(clip, bits):
        state = {name: value.clone() for name, value in clip.module.state_dict().items()}
        for name, value in state.items():
            if value.ndim >= 2 and "embed" not in name:
                turned = name.endswith((".proj", "text_projection"))
                state[name] = rounded_rows(value.T, bits).T.contiguous() if turned else rounded_rows(value, bits)
        return state

    return round_state


@pytest.fixture(scope="session")
def towers(tiny, tmp_path_factory, exported_once):
    """A folder of ONNX towers of each kind: `dynamic` (w8a8), `weights` (w8) and `full`."""
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package, reason="the extra pytest-qreliab[onnxruntime] is not installed")
    from pytest_qreliab.quantizers.engine import layers
    from pytest_qreliab.quantizers.libraries import onnx_preparation, onnxruntime

    folder = tmp_path_factory.mktemp("towers")
    clip, unpacked = layers.unpack_layers(tiny, "both")
    exported = {name: onnxruntime.export(clip, name) for name in ("visual", "text")}
    for bits, kind in ((Format.integers(8, 8), "dynamic"), (Format.integers(8), "weights"), (None, "full")):
        for name, graph in exported.items():
            file = folder / kind / f"{name}.onnx"
            file.parent.mkdir(exist_ok=True)
            request = Request(bits=bits or Format.integers(8), scope="both", parameters=OnnxRuntime())
            prepared = onnx_preparation.prepare(graph, unpacked)
            if bits:
                prepared = onnxruntime._quantized(prepared, name, tiny, request, [])
            file.write_bytes(prepared.SerializeToString() if bits else graph)
    return folder
