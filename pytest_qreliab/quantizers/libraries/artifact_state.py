"""Artifacts that are a state dict in a `.pt` or `.safetensors` file.

It holds torchao's tensors, int8 weights of bitsandbytes, or floats that are rounded already.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import checkpoints
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.quantizers.engine import grid_recognition, layers, packed_weights
from pytest_qreliab.quantizers.engine.unpack import unpack
from pytest_qreliab.quantizers.libraries import optional, packed_states

WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")  # of DistributedDataParallel and torch.compile

State = Mapping[str, torch.Tensor]
InScope = Callable[[str, str], bool]  # from the name of a tensor and a scope


def stored_bits(path: Path, scope: str, in_scope: InScope | None = None) -> list[Format]:
    """Return the bits of every quantized weight of the towers in `scope`.

    If a library's tensors are among the weights, only those count.

    Args:
        path: The file.
        scope: The towers to look at: "vision", "text" or "both".
        in_scope: Tells the towers of the model. None: the model is not known yet. A file with tensors below `visual.`
            is then taken as open_clip lays it out, and of any other all weights count.

    Raises:
        InputError: The file is missing, damaged, or no state dict; or the bits of a tensor are unknown.
    """
    state = _read_state(path)
    if in_scope is None and any(name.startswith("visual.") for name in state):
        in_scope = OPEN_CLIP.in_scope
    return list(_stored_bits(path, state if in_scope is None else _select(state, scope, in_scope)))


def load(clip: Clip, path: Path, scope: str) -> Clip:
    """Return a copy of a model with the weights of a file.

    Args:
        clip: The original, which gives the architecture and the towers out of scope.
        path: The file with the state dict.
        scope: The towers to take from the file: "vision", "text" or "both", which takes every tensor of it.

    Raises:
        InputError: The file cannot be read, or is of another architecture.
    """
    state = _select(_read_state(path), scope, clip.in_scope)
    candidate = _matching_copy(clip, path, state, scope)
    floats = {
        name: value.float() if value.is_floating_point() and value.dtype != torch.float32 else value
        for name, value in state.items()
    }
    candidate.module.load_state_dict(floats, strict=False, assign=True)
    candidate.module.to(clip.device).requires_grad_(False)
    if not any(map(packed_weights.is_library_tensor, state.values())):
        # The output is the same, and the bare projections are then by output channel, as the coverage reads them.
        # If inputs are rounded, the last digit can decide, so a library's model is taken just as it is.
        unpack(candidate, scope)
    return candidate


def value_bits(weight: torch.Tensor) -> int | None:
    """Return the bits of a weight by its values.

    A channel that lies on an even grid has as many bits as the grid has levels between its ends. Any other has the
    fewest with which `grid_recognition.lies_on_grid`.

    Args:
        weight: A weight with the output channels first.

    Returns:
        The bits of the widest channel, or None if a channel is not rounded.
    """
    rows = weight.detach().flatten(1).double()
    if not rows.isfinite().all():
        return None
    found = []
    for row in grid_recognition.some_rows(rows):
        values = row.unique()
        if len(values) < 2:  # pruned, or a depthwise weight of one element: it says nothing
            continue
        multiples = values / values.diff().min()
        levels = int((multiples[-1] - multiples[0]).round().clamp(max=2**20)) + 1
        even = bool((multiples - multiples.round()).abs().max() < 0.01)
        if even and levels <= 256:
            bits = max(2, math.ceil(math.log2(levels)))
        else:
            bits = next((bits for bits in range(2, 9) if grid_recognition.lies_on_grid(row, bits)), 0)
        if not bits:
            return None
        found.append(bits)
    return max(found, default=None)


def _read_state(path: Path) -> State:
    if not path.is_file():
        raise InputError(f"artifact {path.absolute()} does not exist")
    if path.suffix != ".safetensors" and _names_torchao(path):
        optional.require(f"artifact:{path}", "torchao", "torchao")
        optional.load("torchao.quantization")  # its tensors may then be loaded with weights_only=True
    tensors = checkpoints.load_tensors(path)
    return packed_states.readable(path, {WRAPPERS.sub("", name): value for name, value in tensors.items()})


def _names_torchao(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return any(b"torchao" in archive.read(name) for name in pickles)


def _select(state: State, scope: str, in_scope: InScope) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if scope == "both" or in_scope(name, scope)}


def _stored_bits(path: Path, state: State) -> Iterator[Format]:
    library_tensors = {name: value for name, value in state.items() if packed_weights.is_library_tensor(value)}
    for name, value in library_tensors.items():
        stored = packed_weights.torchao_format(value)
        if stored is None:
            raise InputError(
                f"artifact {path}: {name} is stored as {type(value).__name__}, and the bits of that are unknown"
            )
        yield Format.integers(stored.bits, stored.activations)
    for name, value in state.items() if not library_tensors else ():
        if value.ndim >= 2 and value.is_floating_point() and "embed" not in name:
            # open_clip multiplies by these bare parameters from the right: their columns are the channels.
            turned = name.endswith((".proj", "text_projection")) and value.ndim == 2
            bits = value_bits(value.T if turned else value)
            if bits is not None:
                yield Format.integers(bits)


def _matching_copy(clip: Clip, path: Path, state: State, scope: str) -> Clip:
    """Return a copy of the original with the file's parameters."""
    candidate = clip.copy()
    own = _select(candidate.module.state_dict(), scope, clip.in_scope)
    if not state.keys() <= own.keys():
        unpacked, _ = layers.unpack_layers(clip, scope)
        names = _select(unpacked.module.state_dict(), scope, clip.in_scope)
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
