"""Writing files whole or not at all, and saying what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_qreliab.config.settings import SettingValue
from pytest_qreliab.errors import InputError


def write(path: Path, content: str | bytes) -> None:
    """Put a file in the place of one that may be there, in one step; text in UTF-8. Raises OSError."""
    part = _part(path)
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def prepare(value: SettingValue) -> Path | None:
    """The file of a setting, which is free to be written: none is there, but its folder is. None for `none`.

    Raises InputError where it cannot be written.
    """
    if value.text == "none":
        return None
    path = Path(value.text).expanduser().absolute()
    if path.exists() and not path.is_file():
        raise InputError(f"{value.origin}: {path} is no file; give a file, which need not exist yet, or none")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _part(path).touch()
        _part(path).unlink()
        path.unlink(missing_ok=True)  # of a run before, which must not be taken for this one's
    except OSError as error:
        raise InputError(f"{value.origin}: {path} cannot be written: {error.strerror}") from None
    return path


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")
