"""`artifact:PATH`: a model that was quantized elsewhere, read from disk.

A folder holds ONNX towers, `visual.onnx` and `text.onnx`. A `.pt` or `.safetensors` file holds the state dict of the
same architecture, unpacked or not, with torchao's tensors, with int8 weights of bitsandbytes, or with floats that are
rounded already. The bits are read from the file. What is not in it (preprocessing, tokenizer, with ONNX the logit
scale) is the original's.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.models import probes
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers
from pytest_qreliab.quantizers.libraries import artifact_graphs, artifact_state
from pytest_qreliab.quantizers.libraries.optional import first_line
from pytest_qreliab.quantizers.parameters import Artifact
from pytest_qreliab.quantizers.request import Request


def read_bits(parameters: Artifact, scope: str) -> Format:
    """Return the bits of an artifact. Raises InputError as `inspect` does."""
    return inspect(Path(parameters.path), scope)


def inspect(path: Path, scope: str, in_scope: artifact_state.InScope | None = None) -> Format:
    """Return the bits of the towers in `scope`.

    Args:
        path: The file or folder.
        scope: The towers to look at: "vision", "text" or "both".
        in_scope: Tells from the name of a tensor whether it is in a scope of the model. None: the model is not known
            yet; see `artifact_state.stored_bits`.

    Returns:
        The widest weights and, if any input is rounded, the widest activations in the file.

    Raises:
        InputError: The file is damaged, incomplete, of an unknown kind, or not quantized at all.
    """
    if path.is_dir():
        found = artifact_graphs.stored_bits(path, scope)
        reason = "no matrix product or convolution in it reads integers"
    else:
        found = artifact_state.stored_bits(path, scope, in_scope)
        reason = "none of its weight matrices lies on grids of 256 levels or fewer, one for each output channel"
    if not found:
        raise InputError(f"artifact {path} is not quantized in scope {scope!r}: {reason}")
    return Format.integers(
        max(bits.weights.bits for bits in found),
        max((bits.activations.bits for bits in found if bits.activations is not None), default=None),
    )


def quantize(clip: Clip, request: Request) -> Clip:
    """Return the model of the artifact, on the device of `clip`.

    Towers out of scope are those of `clip`.

    Raises:
        InputError: The artifact cannot be read, has other bits, or does not fit the model.
    """
    path = Path(request.parameters.path).expanduser()
    found = inspect(path, request.scope, clip.in_scope)
    if found != request.bits:
        raise InputError(
            f"artifact {path} is {found} in scope {request.scope!r} of {clip.name}, not {request.bits}, as its cases "
            "say; if its towers have different bits, save a state dict of each tower alone"
        )
    load = artifact_graphs.load if path.is_dir() else artifact_state.load
    quantized = load(clip, path, request.scope)
    _try_out(clip, quantized, path, request.scope)
    return quantized


def _try_out(clip: Clip, quantized: Clip, path: Path, scope: str) -> None:
    """Raise InputError unless the artifact's features have the original's shape."""
    images = layers.probe_images(clip)

    def shape(model: Clip, tower: str) -> torch.Size:
        return (model.encode_image(images) if tower == "vision" else model.encode_text(probes.PROMPTS)).shape

    for tower in ("vision", "text"):
        if scope not in ("both", tower):
            continue
        expected = shape(clip, tower)
        try:
            found = shape(quantized, tower)
        except Exception as error:  # of torch, of a library's kernels, or of ONNX Runtime
            raise InputError(
                f"artifact {path} cannot run on the inputs of {clip.name}: {first_line(error)[:300]}"
            ) from error
        if found != expected:
            raise InputError(
                f"artifact {path} is of another architecture than {clip.name}: its {tower} features have the shape "
                f"{tuple(found)}, not {tuple(expected)}"
            )
