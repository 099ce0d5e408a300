"""The files of the store: their names, what an entry holds, and how they are written.

An entry is a safetensors file of arrays and facts. The entry of an image set points to a `.npy` file beside it, which
is mapped into memory. A file is written under another name and then renamed, so that a process that is killed, or a
disk that is full, leaves no half of one. Checksums find later damage.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from pytest_qreliab.hashing import array_digest, digest

FORMAT = "1"  # of the files; those of another format are left alone
ENTRY, ROWS, PART, LOCK = ".safetensors", ".npy", ".part", ".lock"
TRAINING = "training"  # the folder for training runs that were not finished, or whose result is not kept

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class CacheEntry:
    """The arrays and facts that are kept under one key."""

    arrays: Arrays
    facts: Mapping[str, Any]  # what JSON can hold
    about: str  # what the entry is, in words


class DamagedEntryError(Exception):
    """A file that is not the entry that was written; the message says what is wrong."""


def entry_path(folder: Path, key: str, suffix: str = ENTRY) -> Path:
    """Return the path of a file that belongs to a key."""
    return folder / FORMAT / key[:2] / f"{key}{suffix}"


def encode_entry(entry: CacheEntry) -> bytes:
    """Return the content of an entry's file."""
    arrays = {name: np.ascontiguousarray(array) for name, array in entry.arrays.items()}
    checksum = _checksum(arrays, entry.facts)
    metadata = {"checksum": checksum, "facts": json.dumps(entry.facts), "about": entry.about}
    return safetensors.numpy.save(arrays, metadata)


def read_entry(path: Path) -> CacheEntry:
    """Return the entry that a file holds.

    Raises:
        DamagedEntryError: The content is not what was written.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    try:
        arrays = safetensors.numpy.load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        facts = json.loads(metadata["facts"])
        if metadata["checksum"] != _checksum(arrays, facts):
            raise DamagedEntryError("is damaged: its checksum is another")
        return CacheEntry(arrays, facts, metadata["about"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DamagedEntryError(f"is damaged: {error}") from None


def _checksum(arrays: Arrays, facts: Mapping[str, Any]) -> str:
    return digest({name: array_digest(array) for name, array in arrays.items()}, json.dumps(facts))


class PartFile:
    """A file that is being written. After the first error of the disk, which is kept, nothing more is done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        self._file: BinaryIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            self.error = error

    def do(self, write: Callable[[BinaryIO], object]) -> None:
        """Call a function with the open file, unless an error came before."""
        try:
            if self._file is not None and self.error is None:
                write(self._file)
        except OSError as error:
            self.error = error

    def remove(self) -> None:
        """Close the file, and remove it if it was not renamed."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self.path.unlink(missing_ok=True)
