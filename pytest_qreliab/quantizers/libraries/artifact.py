"""`artifact:PATH`: a model that was quantized elsewhere, as it lies on disk, to be gated against its original.

A folder holds ONNX towers, `visual.onnx` and `text.onnx`; a `.pt` or `.safetensors` file holds the state dict of the
same architecture, unpacked or not, with torchao's tensors or with weights rounded already. The bits are read from
the file. What is not in the file (preprocessing, tokenizer, with ONNX the logit scale) is the original's.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import openclip
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.models.onnx_towers import OnnxClip, tower
from pytest_qreliab.quantizers.engine import layers, packed_weights
from pytest_qreliab.quantizers.engine.unpack import unpack
from pytest_qreliab.quantizers.libraries import optional
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph
from pytest_qreliab.quantizers.parameters import Artifact
from pytest_qreliab.quantizers.request import Request

TOWERS = {"visual": "vision", "text": "text"}
SAMPLED_CHANNELS = 16

State = Mapping[str, torch.Tensor]


def read_bits(parameters: Artifact, scope: str) -> Bits:
    """The bits that the file holds. Raises InputError as `inspect` does."""
    return inspect(Path(parameters.path), scope)


def inspect(path: Path, scope: str) -> Bits:
    """The bits of the towers in `scope`: the widest weights and, where any input is rounded, activations in the file.

    Raises InputError for a file that is damaged, incomplete, of an unknown kind, or not quantized at all.
    """
    if path.is_dir():
        found = [
            (matrix.bits, matrix.activations)
            for file in _graphs(path, scope).values()
            for matrix in Graph(_read_graph(file)).matrices()
            if matrix.bits is not None
        ]
        reason = "no matrix product or convolution in it reads integers"
    else:
        found = list(_stored(path, _scoped(_read_state(path), scope)))
        reason = "its weights take more than 256 values per output channel"
    if not found:
        raise InputError(f"artifact {path} is not quantized in scope {scope!r}: {reason}")
    return Bits(
        max(weights for weights, _ in found),
        max((activations for _, activations in found if activations is not None), default=None),
    )


def quantize(clip: Clip, request: Request) -> Clip:
    """The model of the artifact, on the device of `clip`, whose towers out of scope it keeps."""
    path = Path(request.parameters.path).expanduser()
    found = inspect(path, request.scope)
    if found != request.bits:
        raise InputError(f"artifact {path} is {found}, not {request.bits}")
    quantized = _from_graphs(clip, path, request.scope) if path.is_dir() else _from_state(clip, path, request.scope)
    _try(clip, quantized, path, request.scope)
    return quantized


# ONNX


def _graphs(folder: Path, scope: str) -> dict[str, Path]:
    optional.require(f"artifact:{folder}", "onnxruntime", "onnxruntime", "onnx")
    files = {name: folder / f"{name}.onnx" for name, of in TOWERS.items() if scope in ("both", of)}
    needed = " and ".join(file.name for file in files.values())
    for file in files.values():
        if not file.is_file():
            raise InputError(f"artifact {folder}: {file.name} is missing; scope {scope!r} needs {needed}")
    return files


def _read_graph(file: Path) -> Any:
    onnx = optional.load("onnx")
    try:
        model = onnx.load(str(file))
    except Exception as error:  # of protobuf, of the file system or of onnx
        raise InputError(f"artifact {file} is damaged or no ONNX file: {_first_line(error)}") from None
    if not model.graph.node:
        raise InputError(f"artifact {file} is damaged or no ONNX file: it describes no graph")
    return model


def _from_graphs(clip: Clip, folder: Path, scope: str) -> Clip:
    if clip.layout is not OPEN_CLIP:
        raise InputError(
            f"artifact {folder}: ONNX towers can stand for those of open_clip models, and {clip.name} is none"
        )
    try:
        towers = {name: tower(file, clip.device) for name, file in _graphs(folder, scope).items()}
    except InputError:
        raise
    except Exception as error:  # ONNX Runtime has a class for each of its reasons
        raise InputError(f"artifact {folder} cannot be loaded by ONNX Runtime: {_first_line(error)}") from None
    rest = clip.module if len(towers) == 2 else clip.copy().module
    return replace(clip, module=OnnxClip(rest, towers).eval())


# State dicts


def _read_state(path: Path) -> State:
    if not path.is_file():
        raise InputError(f"artifact {path.absolute()} does not exist")
    if path.suffix != ".safetensors" and _names_torchao(path):
        optional.require(f"artifact:{path}", "torchao", "torchao")
        optional.load("torchao.quantization")  # its tensors may then be loaded with weights_only=True
    openclip.check_checkpoint(path)
    if path.suffix == ".safetensors":
        import safetensors.torch

        state: Any = safetensors.torch.load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"artifact {path} holds no state dict: save state_dict() of the quantized model alone")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _names_torchao(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return any(b"torchao" in archive.read(name) for name in pickles)


def _scoped(state: State, scope: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if OPEN_CLIP.in_scope(name, scope)}


def _stored(path: Path, state: State) -> Iterator[tuple[int, int | None]]:
    """(weight bits, activation bits) of every quantized weight; of library weights alone where there are any."""
    of_library = {name: value for name, value in state.items() if packed_weights.is_library_tensor(value)}
    for name, value in of_library.items():
        stored = packed_weights.of_tensor(value)
        if stored is None:
            raise InputError(
                f"artifact {path}: {name} is stored as {type(value).__name__}, of which the bits are unknown"
            )
        yield stored.bits, stored.activations
    for name, value in state.items() if not of_library else ():
        if value.ndim >= 2 and value.is_floating_point() and "embed" not in name:
            # open_clip multiplies by these bare parameters from the right: their columns are the channels.
            turned = name.endswith((".proj", "text_projection")) and value.ndim == 2
            bits = value_bits(value.T if turned else value)
            if bits is not None:
                yield bits, None


def value_bits(weight: torch.Tensor) -> int | None:
    """Bits of a weight whose output channels (first axis) are rounded, each to its own levels; None where they are not.

    A channel that lies on an even grid has as many bits as the grid has levels between its ends; any other counts by
    its distinct values, which must be few beside its length: a short channel has few values anyway.
    """
    rows = weight.detach().flatten(1).double()
    if not rows.isfinite().all():
        return None
    found = []
    for row in rows[:: max(1, len(rows) // SAMPLED_CHANNELS)]:
        values = row.unique()
        if len(values) < 2:  # pruned, or a depthwise weight of one element: it says nothing
            continue
        multiples = values / values.diff().min()
        levels = int((multiples[-1] - multiples[0]).round().clamp(max=2**20)) + 1
        even = bool((multiples - multiples.round()).abs().max() < 0.01)
        if not even or levels > 256:
            levels = len(values)
            if 2 * levels > len(row):
                return None
        if levels > 256:
            return None
        found.append(max(2, math.ceil(math.log2(levels))))
    return max(found, default=None)


def _from_state(clip: Clip, path: Path, scope: str) -> Clip:
    state = _scoped(_read_state(path), scope)
    candidate = _matching(clip, path, state, scope)
    floats = {
        name: value.float() if value.is_floating_point() and value.dtype != torch.float32 else value
        for name, value in state.items()
    }
    candidate.module.load_state_dict(floats, strict=False, assign=True)
    candidate.module.to(clip.device).requires_grad_(False)
    if not any(map(packed_weights.is_library_tensor, state.values())):
        # The output is the same, and the bare projections are then by output channel, as the coverage reads them.
        # Where inputs are rounded, the last digit can decide, so a library's model is taken just as it is.
        unpack(candidate, scope)
    return candidate


def _matching(clip: Clip, path: Path, state: State, scope: str) -> Clip:
    """A copy of the original, packed or unpacked, with the parameters that the file names."""
    candidate = clip.copy()
    own = _scoped(candidate.module.state_dict(), scope)
    if not state.keys() <= own.keys():
        unpacked, _ = layers.unpack_layers(clip, scope)
        names = _scoped(unpacked.module.state_dict(), scope)
        if state.keys() <= names.keys():
            candidate, own = unpacked, names
    for wrong, what in ((own.keys() - state.keys(), "misses"), (state.keys() - own.keys(), "has unknown")):
        if wrong:
            raise InputError(
                f"artifact {path} is of another architecture than {clip.name}: it {what} {len(wrong)} tensors, "
                f"{sorted(wrong)[0]} among them"
            )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise InputError(
                f"artifact {path} is of another architecture than {clip.name}: {name} has the shape "
                f"{tuple(value.shape)}, not {tuple(own[name].shape)}"
            )
    return candidate


def _try(clip: Clip, quantized: Clip, path: Path, scope: str) -> None:
    """Raise InputError unless the artifact encodes what the original does, to features of the same length."""
    image = clip.preprocess(Image.new("RGB", (64, 64)))[None]
    for of in ("vision", "text"):
        if scope not in ("both", of):
            continue
        expected = (clip.encode_image(image) if of == "vision" else clip.encode_text(["a"])).shape
        try:
            shape = (quantized.encode_image(image) if of == "vision" else quantized.encode_text(["a"])).shape
        except Exception as error:  # of torch, of a library's kernels, or of ONNX Runtime
            raise InputError(
                f"artifact {path} cannot run on the inputs of {clip.name}: {_first_line(error)}"
            ) from error
        if shape != expected:
            raise InputError(
                f"artifact {path} is of another architecture than {clip.name}: its {of} features have the shape "
                f"{tuple(shape)}, not {tuple(expected)}"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
