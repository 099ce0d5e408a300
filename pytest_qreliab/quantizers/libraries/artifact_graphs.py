"""Artifacts that are a folder of ONNX towers, `visual.onnx` and `text.onnx`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.models.onnx_towers import OnnxClip, load_tower
from pytest_qreliab.quantizers.libraries import optional
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph

TOWERS = {"visual": "vision", "text": "text"}  # the scope of each file


def stored_bits(folder: Path, scope: str) -> list[Format]:
    """Return the bits of every quantized weight of the towers in `scope`.

    Raises:
        InputError: A file is missing or damaged, or ONNX is not installed.
    """
    return [
        Format.integers(matrix.bits, matrix.activations)
        for file in _files(folder, scope).values()
        for matrix in Graph(_read_graph(file)).matrices()
        if matrix.bits is not None
    ]


def load(clip: Clip, folder: Path, scope: str) -> Clip:
    """Return a model with the towers of a folder.

    Towers out of scope are those of `clip`.

    Raises:
        InputError: A file is missing, ONNX Runtime cannot load it, or the model is not one of open_clip.
    """
    if clip.layout is not OPEN_CLIP:
        raise InputError(
            f"artifact {folder}: ONNX towers can stand for those of open_clip models, and {clip.name} is none"
        )
    try:
        towers = {name: load_tower(file, clip.device) for name, file in _files(folder, scope).items()}
    except InputError:
        raise
    except Exception as error:  # ONNX Runtime has a class for each of its reasons
        reason = optional.first_line(error)[:300]
        raise InputError(f"artifact {folder} cannot be loaded by ONNX Runtime: {reason}") from None
    rest = clip.module if len(towers) == 2 else clip.copy().module
    return replace(clip, module=OnnxClip(rest, towers).eval())


def _files(folder: Path, scope: str) -> dict[str, Path]:
    optional.require(f"artifact:{folder}", "onnxruntime", "onnxruntime", "onnx")
    files = {name: folder / f"{name}.onnx" for name, its_scope in TOWERS.items() if scope in ("both", its_scope)}
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
        reason = optional.first_line(error)[:300]
        raise InputError(f"artifact {file} is damaged or no ONNX file: {reason}") from None
    if not model.graph.node:
        raise InputError(f"artifact {file} is damaged or no ONNX file: it describes no graph")
    return model
