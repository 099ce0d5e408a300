"""Class names and templates that are built in, or lie in a text file."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pytest_qreliab.errors import InputError, unknown

# Keys, of ImageNet the WordNet ids that its folders are called by, are timm's, names and templates open_clip's.
_KEYS = {"imagenet": "imagenet_synsets", "imagenet-a": "imagenet_a_synsets", "imagenet-r": "imagenet_r_synsets"}
_TEMPLATES = {"imagenet": "OPENAI_IMAGENET_TEMPLATES", "imagenet-simple": "SIMPLE_IMAGENET_TEMPLATES"}


def classes(name: str, file: Path) -> dict[str, str]:
    """Names by key, in label order, of a built-in set of that name, or from `file`: a line for each class.

    A line is a name, or a key, a tab and a name. Raises InputError for neither, or for a line that cannot be.
    """
    if name in _KEYS:
        of_all = dict(zip(_synsets("imagenet_synsets"), _open_clip()["IMAGENET_CLASSNAMES"], strict=True))
        return {key: of_all[key] for key in _synsets(_KEYS[name])}
    found: dict[str, str] = {}
    for number, line in _lines("set of classes", name, file, _KEYS):
        key, _, text = (part.strip() for part in line.partition("\t"))
        if not key or ("\t" in line and not text):
            raise InputError(f"{file}:{number}: {line!r} is no class: write its name, or its key, a tab and its name")
        if key in found:
            raise InputError(f"{file}:{number}: {key!r} is given twice")
        found[key] = text or key
    return found


def templates(name: str, file: Path) -> list[str]:
    """The templates of a built-in set of that name, or the lines of `file`. Raises InputError for neither."""
    if name in _TEMPLATES:
        return [template("{}") for template in _open_clip()[_TEMPLATES[name]]]
    return [line for _, line in _lines("set of templates", name, file, _TEMPLATES)]


def _lines(what: str, name: str, file: Path, known: Mapping[str, str]) -> list[tuple[int, str]]:
    """The lines that hold anything, with their numbers."""
    if not file.is_file():
        raise unknown(what, name, known, hint=f"or the path of a text file ({file} does not exist)")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{file}: cannot be read: {reason}") from None
    found = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise InputError(f"{file}: is empty; write one to a line")
    return found


@cache
def _open_clip() -> dict[str, Any]:
    """The variables of open_clip's file of names, which is run by itself: the package would import torch."""
    return runpy.run_path(str(_package("open_clip") / "zero_shot_metadata.py"))


def _synsets(name: str) -> list[str]:
    return (_package("timm") / "data" / "_info" / f"{name}.txt").read_text(encoding="utf-8").split()


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
