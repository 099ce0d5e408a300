"""Files of reports, written whole or not at all."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_qreliab.config.settings import SettingValue
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import text_sha256

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST_NAME = 160  # letters; file systems take 255 bytes, and an ending comes behind


def read(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def first_problem(error: ValidationError) -> str:
    """Return the place and the text of the first problem."""
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def safe_name(name: str) -> str:
    """Return a name for a file or folder: without odd letters, and short enough for every file system."""
    plain = re.sub(r"[^\w.+-]+", "_", name, flags=re.ASCII)
    return plain if len(plain) <= LONGEST_NAME else f"{plain[: LONGEST_NAME - 9]}-{text_sha256(name)[:8]}"


def write(path: Path, content: str | bytes) -> None:
    """Write a file in one step, in place of an older one.

    Args:
        path: The file.
        content: Bytes, or text to be encoded in UTF-8.

    Raises:
        OSError: The file cannot be written. Its `filename` is the path.
    """
    part = _part(path)
    try:
        # A path that is no UTF-8 holds what UTF-8 cannot.
        part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def prepare(value: SettingValue) -> Path | None:
    """Make room for the file that a setting names.

    The folder is created. A file of an earlier run stays until `remove_old`.

    Returns:
        The absolute path; None for the setting `none`.

    Raises:
        InputError: The file cannot be written.
    """
    if value.text == "none":
        return None
    path = value.path().absolute()
    if path.exists() and not path.is_file():
        raise InputError(f"{value.origin}: {path} is no file; give a file, which need not exist yet, or none")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _part(path).touch()
        _part(path).unlink()
    except OSError as error:
        raise InputError(f"{value.origin}: {path} cannot be written: {error.strerror}") from None
    return path


def remove_old(path: Path) -> None:
    """Remove the file of an earlier run, which must not be taken for this one's."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """Return the file that is written first and then renamed."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")
