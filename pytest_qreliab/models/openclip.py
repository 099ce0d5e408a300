"""Models of open_clip: hub tags, local checkpoints, `hf-hub:` and `local-dir:` names."""

from __future__ import annotations

import importlib.util
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.models.names import TINY_DIGITS

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from pytest_qreliab.models.clip import Clip

HUB, LOCAL = "hf-hub:", "local-dir:"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def architectures() -> list[str]:
    """Return the names of the architectures that open_clip describes, without importing it."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("open_clip is not installed: pip install open_clip_torch")
    folder = Path(spec.submodule_search_locations[0]) / "model_configs"
    return sorted(path.stem for path in folder.glob("*.json"))


def tags() -> dict[str, list[str]]:
    """Return the tags of the hub weights of every architecture."""
    return {name: list(_open_clip().list_pretrained_tags_by_model(name)) for name in architectures()}


def check_name(name: str, registered: Iterable[str] = ()) -> None:
    """Raise InputError if a model cannot be loaded, as far as a check without loading or downloading shows.

    Args:
        name: Of the model.
        registered: Other names that the message may suggest.
    """
    if name.startswith(HUB):
        if name.removeprefix(HUB).count("/") != 1:
            raise InputError(f"model {name!r}: write {HUB}ORGANISATION/REPOSITORY")
        return
    if name.startswith(LOCAL):
        _check_folder(name, Path(name.removeprefix(LOCAL)).expanduser())
        return
    architecture, _, weights = name.partition("/")
    valid = architectures()
    if architecture not in valid:
        raise unknown("model", name if "/" not in name else architecture, [TINY_DIGITS, *registered, *valid])
    path = Path(weights).expanduser()
    if weights and path.is_file():
        check_checkpoint(path)
    elif path.suffix in SUFFIXES or "/" in weights:
        raise InputError(f"model {name!r}: there is no checkpoint {path.absolute()}")
    else:
        _check_tag(name, architecture, weights)


def local_files(name: str) -> tuple[str, tuple[Path, ...]]:
    """Return the architecture and the files of a model: all files of a folder, none for a model of a hub."""
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL)).expanduser()
        return LOCAL, tuple(sorted(path for path in folder.iterdir() if path.is_file()))
    architecture, _, weights = name.partition("/")
    path = Path(weights).expanduser()
    return architecture, (path,) if not name.startswith(HUB) and path.is_file() else ()


def _check_tag(name: str, architecture: str, tag: str) -> None:
    tags = _open_clip().list_pretrained_tags_by_model(architecture)
    hint = f"or a checkpoint: {architecture}/PATH with {', '.join(SUFFIXES)}"
    if not tag:
        raise InputError(
            f"model {name!r} names no weights; write {architecture}/TAG with one of {', '.join(tags)}, {hint}"
        )
    if tag.lower().replace("-", "_") not in tags:
        raise unknown(f"weights of {architecture}", tag, tags, hint=hint)


def _check_folder(name: str, folder: Path) -> None:
    config = folder / "open_clip_config.json"
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"model {name!r}: {config} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"model {name!r}: {config} is not valid JSON: {error}") from None
    if "model_cfg" not in described:
        raise InputError(f"model {name!r}: {config} has no 'model_cfg'")
    checkpoints = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
    if not checkpoints:
        raise InputError(f"model {name!r}: no checkpoint in {folder}; open_clip_model.safetensors is expected")
    for path in checkpoints:
        check_checkpoint(path)


def check_checkpoint(path: Path) -> None:
    """Raise InputError if a checkpoint is truncated, of another format, or holds more than weights."""
    if path.suffix == ".safetensors":
        import safetensors

        try:
            with safetensors.safe_open(path, framework="numpy"):
                return
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"checkpoint {path} is damaged or no safetensors file: {error}") from None
    if path.suffix not in SUFFIXES:
        raise InputError(f"checkpoint {path}: the format {path.suffix!r} is not one of {', '.join(SUFFIXES)}")
    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise InputError(
            f"checkpoint {path} is damaged, or holds code beside its weights, which is never run; "
            "save its state_dict() alone, best as .safetensors"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition(". ")[0].partition("\n")[0]
        raise InputError(f"checkpoint {path} is damaged or no PyTorch file: {reason}") from None


def load(name: str) -> Clip:
    """Load a model of open_clip on the CPU.

    Raises:
        InputError: The model cannot be loaded.
    """
    from pytest_qreliab.models.clip import Clip

    architecture, _, weights = name.partition("/")
    if name.startswith(HUB):
        source, pretrained, quick_gelu = name, None, False
    elif name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL)).expanduser()
        source, pretrained, quick_gelu = f"{LOCAL}{folder}", None, False
    else:
        path = Path(weights).expanduser()
        source, pretrained = architecture, str(path) if path.is_file() else weights
        # Some tags (OpenAI's above all) were trained with QuickGELU, whatever the architecture's file says.
        quick_gelu = bool(_open_clip().get_pretrained_cfg(architecture, weights).get("quick_gelu", False))
    module, preprocess = create(source, pretrained, force_quick_gelu=quick_gelu)
    with _loading(name):
        tokenizer = _open_clip().get_tokenizer(source)
    _check_vocabulary(name, module, tokenizer)
    return Clip(name=name, module=module, preprocess=preprocess, tokenizer=tokenizer)


def _check_vocabulary(name: str, module: Any, tokenizer: Any) -> None:
    """Raise InputError if the tokenizer makes tokens that the text tower does not have."""
    embedding = getattr(getattr(module, "text", module), "token_embedding", None)
    tokens, made = getattr(embedding, "num_embeddings", None), getattr(tokenizer, "vocab_size", None)
    if tokens is not None and made is not None and made > tokens:
        raise InputError(
            f"model {name!r}: its text tower knows {tokens} tokens, and its tokenizer, {type(tokenizer).__name__}, "
            f"gives {made}; name the right one in its configuration (hf_tokenizer_name), or register the model with "
            "its own"
        )


def create(
    source: str, pretrained: str | None = None, *, force_quick_gelu: bool = False
) -> tuple[Any, Callable[[Image.Image], torch.Tensor]]:
    """Create a module of open_clip in float32 and eval mode, with its own image transform.

    Args:
        source: An architecture, or the name of a hub or a folder.
        pretrained: The tag or path of the weights; None for those of the hub or the folder.
        force_quick_gelu: Whether the weights need QuickGELU, whatever the architecture says.

    Raises:
        InputError: The module cannot be created.
    """
    with _loading(source if pretrained is None else f"{source}/{pretrained}"):
        module, preprocess = _open_clip().create_model_from_pretrained(
            source, pretrained, precision="fp32", weights_only=True, force_quick_gelu=force_quick_gelu
        )
    return module.eval().requires_grad_(False), preprocess


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn every error while open_clip loads a model into an InputError that names the model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError as error:
        raise InputError(f"model {name!r} needs the package {error.name}: pip install 'pytest-qreliab[hf]'") from error
    except Exception as error:  # of any kind: what a wrong checkpoint makes open_clip raise is not limited
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"model {name!r} cannot be loaded: {' '.join(lines[:3])[:600]}") from error


def _open_clip() -> Any:
    with warnings.catch_warnings():  # its imports warn of things a user of ours can do nothing about
        warnings.simplefilter("ignore")
        import open_clip
    return open_clip
