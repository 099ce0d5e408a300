"""Class names and templates that are built in, or lie in a text file."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pytest_qreliab.errors import InputError, unknown

# The keys are timm's: for ImageNet the WordNet ids that its folders are called by. Names and templates are open_clip's.
_KEYS = {"imagenet": "imagenet_synsets", "imagenet-a": "imagenet_a_synsets", "imagenet-r": "imagenet_r_synsets"}
_TEMPLATES = {"imagenet": "OPENAI_IMAGENET_TEMPLATES", "imagenet-simple": "SIMPLE_IMAGENET_TEMPLATES"}


def read_classes(name: str, file: Path) -> dict[str, str]:
    """Return the names of classes by their keys, in label order.

    Args:
        name: The name of a built-in set of classes, or the path of a file as the benchmark writes it.
        file: That path, resolved. The file has a line for each class: a name, or a key, a tab and a name.

    Raises:
        InputError: There is neither such a set nor such a file, or a line is no class.
    """
    if name in _KEYS:
        imagenet = dict(zip(_synsets("imagenet_synsets"), _open_clip()["IMAGENET_CLASSNAMES"], strict=True))
        return {key: imagenet[key] for key in _synsets(_KEYS[name])}
    names: dict[str, str] = {}
    for number, line in _lines("set of classes", name, file, _KEYS):
        key, _, text = (part.strip() for part in line.partition("\t"))
        if not key or ("\t" in line and not text):
            raise InputError(f"{file}:{number}: {line!r} is no class: write its name, or its key, a tab and its name")
        if key in names:
            raise InputError(f"{file}:{number}: {key!r} is given twice")
        names[key] = text or key
    return names


def read_templates(name: str, file: Path) -> list[str]:
    """Return the templates of a built-in set, or the lines of a file.

    Raises:
        InputError: There is neither such a set nor such a file.
    """
    if name in _TEMPLATES:
        return [template("{}") for template in _open_clip()[_TEMPLATES[name]]]
    return [line for _, line in _lines("set of templates", name, file, _TEMPLATES)]


def _lines(what: str, name: str, file: Path, built_in: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    if not file.is_file():
        raise unknown(what, name, built_in, hint=f"or the path of a text file ({file} does not exist)")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{file}: cannot be read: {reason}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{file}: is empty; write one to a line")
    return lines


@cache
def _open_clip() -> dict[str, Any]:
    """Run open_clip's file of names by itself and return its variables; importing the package would load torch."""
    return runpy.run_path(str(_package("open_clip") / "zero_shot_metadata.py"))


def _synsets(name: str) -> list[str]:
    return (_package("timm") / "data" / "_info" / f"{name}.txt").read_text(encoding="utf-8").split()


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise InputError(f"the package {name} is not installed")
    return Path(spec.origin).parent
