"""Read checkpoint files: what they hold, before any model is made for it, and their weights."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_qreliab.errors import InputError, listed

if TYPE_CHECKING:
    import torch

SAFETENSORS = ".safetensors"
SUFFIXES = (SAFETENSORS, ".pt", ".pth", ".bin")
SCALE = "logit_scale"
FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e"}  # of safetensors, for `struct`

# What OpenAI's TorchScript archives hold beside their weights.
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")

LFS = b"version https://git-lfs"
NAMED = 6  # names in a message
PART = re.compile(r"-\d+-of-\d+$")

# The towers by the names of two other libraries.
TRANSFORMERS = {"vision_model", "text_model"}
MOBILE_CLIP = {"image_encoder", "text_encoder"}  # which open_clip converts


@dataclass(frozen=True, kw_only=True)
class CheckpointContent:
    """The content of a checkpoint file, by the names that open_clip has for it."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]  # of all tensors
    inside: str = ""  # the key of the file's dictionary that they are under
    prefix: str = ""  # that all names have in the file
    log_scale: float | None = None  # the logarithm of the logit scale, if it is one number


def read_checkpoint(path: Path) -> CheckpointContent:
    """Return what a checkpoint of a CLIP holds. A file that did not change is read once.

    Raises:
        InputError: The file is damaged, of another format, or does not hold one CLIP that open_clip takes.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    return _read(path, stat.st_size, stat.st_mtime_ns)


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint, by open_clip's names.

    Raises:
        InputError: `read_checkpoint` refuses the file.
    """
    checkpoint = read_checkpoint(path)
    named = {name.removeprefix(checkpoint.prefix): tensor for name, tensor in load_tensors(path).items()}
    return {name: tensor for name, tensor in named.items() if name not in NO_WEIGHTS}


def load_tensors(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a state dict, by their names in the file.

    Raises:
        InputError: The file is damaged, of another format, or holds no state dict or several.
    """
    _check_kind(path)
    if path.suffix == SAFETENSORS:
        from safetensors.torch import load_file

        _check_safetensors(path)
        loaded: object = load_file(path)
    else:
        loaded = _load_pickled(path)
    return _find_state_dict(path, loaded)[1]


@lru_cache(maxsize=64)
def _read(path: Path, _size: int, _changed: int) -> CheckpointContent:
    _check_kind(path)
    scale: float | None = None
    inside = ""
    if path.suffix == SAFETENSORS:
        _check_safetensors(path)
        header, start = _header(path)
        shapes = {name: tuple(about["shape"]) for name, about in header.items()}
        prefix = _prefix(path, shapes)
        if (about := header.get(prefix + SCALE)) is not None:
            scale = _number(path, about, start)
    else:
        inside, state = _find_state_dict(path, _load_pickled(path))
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        prefix = _prefix(path, shapes)
        tensor = state.get(prefix + SCALE)
        scale = float(tensor) if tensor is not None and tensor.numel() == 1 else None
    named = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    named = {name: shape for name, shape in named.items() if name not in NO_WEIGHTS}
    _check_names(path, named)
    return CheckpointContent(path=path, shapes=named, inside=inside, prefix=prefix, log_scale=scale)


def _check_kind(path: Path) -> None:
    """Raise InputError if a file is of a kind that is known not to be a checkpoint, with the remedy."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"checkpoint {path}: the format {path.suffix!r} is not one of {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS))
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    if start == LFS:
        raise InputError(f"checkpoint {path} is a pointer of git-lfs in place of the file; fetch it: git lfs pull")
    if PART.search(path.stem):
        raise InputError(f"checkpoint {path} is one part of several; {join_parts(path)}")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise InputError(
                    f"checkpoint {path} is a TorchScript archive, which holds code; save its weights alone: "
                    f"torch.save(torch.jit.load({path.name!r}, map_location='cpu').state_dict(), 'weights.pt'). "
                    "OpenAI's own then need their activation: ARCH/weights.pt@openai, or by tag: ARCH/openai"
                )


def join_parts(path: Path) -> str:
    """Return how to join the parts of a checkpoint to one file, in words."""
    pattern = PART.sub("-*", path.stem) + path.suffix
    return (
        "join them: from safetensors.torch import load_file, save_file; save_file({name: tensor for part in "
        f"pathlib.Path({str(path.parent)!r}).glob({pattern!r}) for name, tensor in load_file(part).items()}}, "
        "'joined.safetensors')"
    )


def _check_safetensors(path: Path) -> None:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy"):
            return
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"checkpoint {path} is damaged or no safetensors file: {error}") from None


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return what a safetensors file says of its tensors, by name, and where their bytes begin."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _number(path: Path, about: Mapping[str, Any], start: int) -> float | None:
    """Return the one number of a tensor of a safetensors file; None if there are more."""
    begin, end = about["data_offsets"]
    if end - begin > 8:
        return None
    with path.open("rb") as file:
        file.seek(start + begin)
        content = file.read(end - begin)
    if about["dtype"] == "BF16":  # the upper half of a float32
        about, content = {"dtype": "F32"}, b"\0\0" + content
    layout = FORMATS.get(about["dtype"], "")
    return struct.unpack(layout, content)[0] if layout and len(content) == struct.calcsize(layout) else None


def _load_pickled(path: Path) -> Any:
    """Return what a file of `torch.save` holds; its tensors stay in the file where the format allows it."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            raise InputError(f"checkpoint {path} is damaged or no PyTorch file") from None
        raise InputError(
            f"checkpoint {path} holds {code[1]} beside its weights, code which is never run; save its state_dict() "
            "alone, best as .safetensors"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition(". ")[0].partition("\n")[0] or "it ends too early"
        raise InputError(f"checkpoint {path} is damaged or no PyTorch file: {reason}") from None


def _find_state_dict(path: Path, loaded: object) -> tuple[str, Mapping[str, torch.Tensor]]:
    """Return the state dict of a loaded file after the key that it is under."""
    if _all_tensors(loaded):
        return "", loaded  # type: ignore[return-value]
    alone = f"save one state_dict() alone: torch.save(torch.load({path.name!r}, weights_only=True)[KEY], 'weights.pt')"
    if not isinstance(loaded, Mapping):
        raise InputError(f"checkpoint {path} holds a {type(loaded).__name__}, no state dict; save state_dict() alone")
    found = [key for key, value in loaded.items() if _all_tensors(value)]
    if len(found) == 1:
        return str(found[0]), loaded[found[0]]
    if not found:
        holds = listed(loaded, NAMED) or "an empty dictionary"
        raise InputError(f"checkpoint {path} holds no state dict, only {holds}; save state_dict() alone")
    raise InputError(f"checkpoint {path} holds several state dicts, {listed(found, NAMED)}; {alone}")


def _all_tensors(value: object) -> bool:
    import torch

    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def _prefix(path: Path, names: Iterable[str]) -> str:
    """Return the prefix that all names have, such as torch.compile's `_orig_mod.`: that of the logit scale."""
    names = list(names)
    ends = sorted((name.removesuffix(SCALE) for name in names if f".{name}".endswith(f".{SCALE}")), key=len)
    if not ends or not ends[0]:  # parts of a tower may have a logit scale of their own
        return ""
    prefix = ends[0]
    others = sorted({f"{name.partition('.')[0]}." for name in names if not name.startswith(prefix)})
    if others:
        raise InputError(
            f"checkpoint {path} holds more than one model: names that begin with {prefix!r}, and with "
            f"{listed(others, NAMED)}; save those of one alone"
        )
    return prefix


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Raise InputError if names show that open_clip's are not among them, or those of a second model are."""
    names = list(names)
    if not names:
        raise InputError(f"checkpoint {path} holds no weights; save the model's state_dict()")
    parts = dict.fromkeys(name.partition(".")[0] for name in names)
    if parts.keys() >= TRANSFORMERS:
        raise InputError(f"checkpoint {path} is of transformers, not of open_clip; {OF_TRANSFORMERS}")
    second = sorted({name.partition(".visual.")[0] for name in names if ".visual." in name})
    if second and "visual" in parts:
        raise InputError(
            f"checkpoint {path} holds another model beside its own, under {listed(second, NAMED)}; take it out"
        )
    towers = parts.keys() >= MOBILE_CLIP or "visual" in parts
    if not towers or SCALE not in parts:
        lacks = f"no {SCALE}" if towers else "no visual.*"
        raise InputError(
            f"checkpoint {path} is no CLIP as open_clip saves them: it has {lacks}; its names begin with "
            f"{listed(parts, NAMED)}"
        )


OF_TRANSFORMERS = (
    "register it with Clip.wrap (see the README), or convert it to open_clip's format, as most repositories of the hub "
    "also have it: hf-hub:ORG/NAME, ARCH/TAG"
)
