"""Models of open_clip whose checkpoints are here: which file a name means, and what it is to be loaded with."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_qreliab.errors import InputError, listed
from pytest_qreliab.models.checkpoints import OF_TRANSFORMERS, SUFFIXES, CheckpointContent, join_parts, read_checkpoint
from pytest_qreliab.models.encoding_settings import IMAGE_SETTINGS, EncodingSettings, check_image_settings

HUB, LOCAL = "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
TOWERS = ("vision_cfg", "text_cfg")

# The files that open_clip takes from a folder whatever else is there, in its own order.
PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)

# What a `preprocess_cfg` may say besides; open_clip takes the size from the image tower, and knows one mode.
OTHER_SETTINGS = {"size", "mode"}

# Parts of a `model_cfg` that say nothing of what the weights compute: tokenizers, and what training alone uses.
NOT_COMPUTED = {"timm_model_pretrained", "hf_model_pretrained", "hf_tokenizer_name", "tokenizer_kwargs", "timm_drop",
                "timm_drop_path", "patch_dropout", "init_logit_scale", "init_logit_bias"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model of open_clip with a checkpoint here."""

    name: str  # for messages
    source: str  # the name that open_clip has for the architecture, or `local-dir:FOLDER`
    path: Path  # of the checkpoint
    config: Path | None  # the `open_clip_config.json` that counts
    model_config: Mapping[str, Any]  # as open_clip has it
    settings: EncodingSettings
    tag: str = ""  # whose settings count
    warnings: tuple[str, ...] = ()

    @cached_property
    def checkpoint(self) -> CheckpointContent:
        """The content of the checkpoint; InputError if it cannot be used."""
        return read_checkpoint(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the model is loaded from."""
        beside = self.path.parent.iterdir() if self.has_tokenizer else ()
        tokenizer = {path for path in beside if path.is_file() and path.suffix in OF_TOKENIZERS}
        return tuple(sorted({self.path, *tokenizer} | ({self.config} if self.config is not None else set())))

    @property
    def has_tokenizer(self) -> bool:
        """Whether the checkpoint's folder holds a tokenizer of transformers, and the model takes one."""
        needs = self.model_config["text_cfg"].get("hf_tokenizer_name")
        return bool(needs) and has_tokenizer_files(self.path.parent)

    @property
    def image_size(self) -> tuple[int, int]:
        """The height and width of the images that the tower takes."""
        return pair(self.model_config["vision_cfg"].get("image_size", 224))

    @property
    def patch_size(self) -> tuple[int, int]:
        """The height and width of the patches that a vision transformer cuts images into."""
        return pair(self.model_config["vision_cfg"].get("patch_size") or 16)

    @property
    def context_length(self) -> int:
        """The number of tokens of a text."""
        return int(self.model_config["text_cfg"].get("context_length", 77))


def pair(value: Any) -> tuple[int, int]:
    """Return a size of one number or of two as two."""
    return (int(value), int(value)) if isinstance(value, int | float) else (int(value[0]), int(value[-1]))


def architecture_folder() -> Path:
    """Return the folder of open_clip's architectures, without importing it."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("open_clip is not installed: pip install open_clip_torch")
    return Path(spec.submodule_search_locations[0]) / "model_configs"


def import_open_clip() -> Any:
    """Import open_clip without the warnings of its imports, about which a user of ours can do nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip
    return open_clip


def architectures() -> list[str]:
    """Return the names of the architectures that open_clip describes, without importing it."""
    return sorted(path.stem for path in architecture_folder().glob("*.json"))


def read_architecture(architecture: str) -> dict[str, Any]:
    """Return the `model_cfg` of an architecture of open_clip."""
    found: dict[str, Any] = json.loads((architecture_folder() / f"{architecture}.json").read_text(encoding="utf-8"))
    return found


def split_tag(weights: str) -> tuple[Path, str]:
    """Return the path and the tag of `PATH@TAG`; a path that is there may hold an `@`."""
    path = Path(weights).expanduser()
    before, at, tag = weights.rpartition("@")
    if not at or not before or path.exists():
        return path, ""
    return Path(before).expanduser(), tag


def in_folder(name: str, path: Path) -> LocalModel:
    """Return the model of a folder with `open_clip_config.json`, or of one of its files.

    Args:
        name: Of the model, for messages.
        path: The folder, or the checkpoint in it that is meant.

    Raises:
        InputError: It cannot be used, as far as its files tell without loading their weights.
    """
    folder = path.parent if path.is_file() else path
    config = folder / CONFIG
    model_config, image_settings = _read_config(name, config)
    chosen = path if path.is_file() else choose_checkpoint(name, folder)
    _check_config(name, config, model_config)
    quick = bool(model_config.get("quick_gelu", False))
    return LocalModel(
        name=name,
        source=f"{LOCAL}{folder}",
        path=chosen,
        config=config,
        model_config=model_config,
        settings=replace(EncodingSettings(), quick_gelu=quick).with_image_settings(image_settings),
        warnings=_image_setting_warnings(name, config, image_settings),
    )


def of_architecture(name: str, architecture: str, path: Path) -> LocalModel:
    """Return the model of an architecture of open_clip with the weights of a file, or of a folder's only one.

    The settings are those of an `open_clip_config.json` beside the file, by default open_clip's own.

    Args:
        name: Of the model, for messages.
        architecture: One of `architectures`.
        path: The checkpoint, or a folder.

    Raises:
        InputError: It cannot be used, as far as its files tell without loading their weights.
    """
    path = choose_checkpoint(name, path) if path.is_dir() else path
    model_config = read_architecture(architecture)
    settings = EncodingSettings(quick_gelu=bool(model_config.get("quick_gelu", False)))
    config: Path | None = path.parent / CONFIG
    warnings: tuple[str, ...] = ()
    if config is not None and config.is_file():
        described, image_settings = _read_config(name, config)
        _check_same(name, architecture, model_config, config, described)
        quick = bool(described.get("quick_gelu", settings.quick_gelu))
        settings = replace(settings, quick_gelu=quick).with_image_settings(image_settings)
        warnings = _image_setting_warnings(name, config, image_settings)
    else:
        config = None
    return LocalModel(
        name=name,
        source=architecture,
        path=path,
        config=config,
        model_config=model_config,
        settings=settings,
        warnings=warnings,
    )


def choose_checkpoint(name: str, folder: Path) -> Path:
    """Return the checkpoint of a folder: the first of open_clip's preferred names, or the only one.

    Raises:
        InputError: There is none, or there are several.
    """
    found = sorted((path for path in folder.iterdir() if path.suffix in SUFFIXES), key=_natural)
    by_name = {path.name: path for path in found}
    preferred = next((by_name[file] for file in PREFERRED if file in by_name), None)
    if preferred is not None:
        return preferred
    if not found:
        raise InputError(f"model {name!r}: no checkpoint ({', '.join(SUFFIXES)}) in {folder}")
    if len(found) == 1:
        return found[0]
    if any((folder / f"{path.name}.index.json").is_file() for path in found) or list(folder.glob("*.index.json")):
        raise InputError(f"model {name!r}: the checkpoint in {folder} is in {len(found)} parts; {join_parts(found[0])}")
    names = listed((path.name for path in found), 12)
    raise InputError(
        f"model {name!r}: {folder} holds several checkpoints, {names}; name the file that is meant in place of the "
        f"folder, as in .../{folder.name}/{found[-1].name}"
    )


def has_tokenizer_files(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer that transformers can read."""
    return any((folder / file).is_file() for file in TOKENIZER_FILES)


OF_TOKENIZERS = (".json", ".txt", ".model")
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.json",
                   "vocab.txt")  # fmt: skip


def _natural(path: Path) -> list[object]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _read_config(name: str, config: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the `model_cfg` and the `preprocess_cfg` of a file."""
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"model {name!r}: {_what_is_there(config.parent)}") from None
    except OSError as error:
        raise InputError(f"model {name!r}: {config} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"model {name!r}: {config} is not valid JSON: {error}") from None
    if not isinstance(described, dict) or not isinstance(described.get("model_cfg"), dict):
        raise InputError(f"model {name!r}: {config} has no 'model_cfg'")
    image_settings = described.get("preprocess_cfg") or {}
    if not isinstance(image_settings, dict):
        raise InputError(f"model {name!r}: 'preprocess_cfg' of {config} is no mapping")
    check_image_settings(image_settings, f"model {name!r}: 'preprocess_cfg' of {config}")
    return described["model_cfg"], image_settings


def _what_is_there(folder: Path) -> str:
    """Say why a folder without `open_clip_config.json` is no model."""
    if (kind := transformers_type(folder)) is not None:
        return f"{folder} holds a model of transformers ({kind}), not of open_clip; {OF_TRANSFORMERS}"
    lacks = f"{folder / CONFIG} cannot be read: No such file or directory"
    if folder.is_dir() and any(path.suffix in SUFFIXES for path in folder.iterdir()):
        return f"{lacks}; with an architecture of open_clip the folder's checkpoint is ARCH/PATH"
    return lacks


def transformers_type(folder: Path) -> str | None:
    """Return the `model_type` of a folder that transformers wrote, None of any other."""
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = described.get("model_type") if isinstance(described, dict) else None
    return str(kind) if kind and not (folder / CONFIG).is_file() else None


def _check_config(name: str, config: Path, model_config: Mapping[str, Any]) -> None:
    missing = [part for part in TOWERS if not isinstance(model_config.get(part), dict)]
    if "embed_dim" not in model_config:
        missing.insert(0, "embed_dim")
    if missing:
        raise InputError(f"model {name!r}: 'model_cfg' of {config} has no {', '.join(missing)}")


def _check_same(
    name: str, architecture: str, mine: Mapping[str, Any], config: Path, described: Mapping[str, Any]
) -> None:
    """Raise InputError if the `model_cfg` beside a checkpoint is that of another architecture."""
    _check_config(name, config, described)
    for of_mine, of_theirs, where in (
        (mine, described, ""),
        *((mine[part], described[part], f"{part}.") for part in TOWERS),
    ):
        for key in sorted({*of_mine, *of_theirs} - NOT_COMPUTED - {"quick_gelu", *TOWERS}):
            if _differ(where, key, of_mine, of_theirs):
                raise InputError(
                    f"model {name!r}: {config} beside the checkpoint is of another architecture than {architecture}: "
                    f"{where}{key} is {of_theirs.get(key)!r}, not {of_mine.get(key)!r}; if it belongs to the "
                    f"checkpoint, write {LOCAL}PATH, else move one of the two, or name a tag: ARCH/PATH@TAG"
                )


def _differ(where: str, key: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Return whether two parts of a `model_cfg` say another thing; what one leaves out has open_clip's default."""
    if mine.get(key) == theirs.get(key):
        return False
    if key == "image_size" and key in mine and key in theirs:
        return pair(mine[key]) != pair(theirs[key])
    open_clip = import_open_clip()
    parts = {"vision_cfg.": open_clip.CLIPVisionCfg, "text_cfg.": open_clip.CLIPTextCfg}
    default = getattr(parts.get(where), key, None)
    return bool(mine.get(key, default) != theirs.get(key, default))


def _image_setting_warnings(name: str, config: Path, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Warn of what a `preprocess_cfg` lacks, and of what open_clip does not know."""
    found = []
    if missing := [key for key in ("mean", "std") if given.get(key) is None]:  # the rest is left out by most
        found.append(f"'preprocess_cfg' has no {', '.join(missing)}: open_clip's default counts")
    if strange := sorted(set(given) - OTHER_SETTINGS - set(IMAGE_SETTINGS)):
        found.append(f"'preprocess_cfg' has {', '.join(strange)}, which open_clip does not know and passes over")
    return tuple(f"model {name!r}: {config.name}: {text}" for text in found)


def local_path(name: str, valid: Iterable[str]) -> tuple[str, Path, str] | None:
    """Return the architecture, the path and the tag of a model whose checkpoint is here, or is meant to be.

    Args:
        name: Of the model. The architecture of a `local-dir:` name is empty.
        valid: The architectures.

    Returns:
        None for a model of a hub, and for one of another library.
    """
    if name.startswith(LOCAL):
        return "", Path(name.removeprefix(LOCAL)).expanduser(), ""
    architecture, _, weights = name.partition("/")
    if name.startswith(HUB) or architecture not in valid or not weights:
        return None
    path, tag = split_tag(weights)
    is_path = path.is_file() or path.suffix in SUFFIXES or "/" in weights
    return (architecture, path, tag) if is_path else None
