"""List the entries of a store, find damaged ones, and remove those unused for longest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_qreliab.embedding import entry_files
from pytest_qreliab.embedding.entry_files import ENTRY, LOCK, PART, ROWS, TRAINING, DamagedEntryError
from pytest_qreliab.hashing import running_digest

ABANDONED = 24 * 3600  # seconds after which a file that was not finished belongs to no one
ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class CacheFile:
    """An entry as `qreliab cache` lists it."""

    path: Path
    size: int  # bytes, with the images that belong to it
    used: float  # when it was last read or written, in seconds since the epoch
    about: str = ""
    problem: str = ""

    def remove(self) -> None:
        """Remove the entry's files."""
        for suffix in (self.path.suffix, ROWS, LOCK):  # the entry first: without it the rest does not count
            with contextlib.suppress(OSError):
                self.path.with_suffix(suffix).unlink(missing_ok=True)


def list_entries(folder: Path, *, read: bool = False, verify: bool = False) -> Iterator[CacheFile]:
    """Yield every entry of a store, and every training run that was not finished.

    Args:
        folder: The store's folder.
        read: Read what each entry says of itself.
        verify: Read each entry and its images, and say what is wrong with them.
    """
    entries = sorted(folder.glob(f"{entry_files.FORMAT}/*/*{ENTRY}"))
    for path in [*entries, *sorted((folder / TRAINING).glob("*.pt"))]:
        try:
            stat = path.stat()
            rows = path.with_suffix(ROWS)
            size = stat.st_size + (rows.stat().st_size if rows.exists() else 0)
        except OSError:
            continue  # another process has removed it
        about = problem = ""
        if path.suffix != ENTRY:
            about = f"training {path.stem}"
        elif read or verify:
            about, problem = _inspect(path, verify)
        yield CacheFile(path=path, size=size, used=stat.st_mtime, about=about, problem=problem)


def prune(folder: Path, limit: float) -> int:
    """Remove entries until the others take at most `limit` bytes, those unused for longest first.

    Files that were not finished and that belong to no one are removed as well.

    Returns:
        How many bytes were removed.
    """
    entries = sorted(list_entries(folder), key=lambda entry: entry.used)
    total, removed = sum(entry.size for entry in entries), 0
    for entry in entries:
        if total - removed <= limit:
            break
        entry.remove()
        removed += entry.size
    return removed + _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> int:
    removed = 0
    for path in folder.glob(f"{entry_files.FORMAT}/*/*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            orphaned = path.suffix == ROWS and not path.with_suffix(ENTRY).exists()
            if (path.suffix in (PART, LOCK) or orphaned) and time.time() - stat.st_mtime > ABANDONED:
                path.unlink()
                removed += stat.st_size
    return removed


def _inspect(path: Path, verify: bool) -> tuple[str, str]:
    """Return what an entry says of itself, and what is wrong with it."""
    try:
        entry = entry_files.read_entry(path)
    except DamagedEntryError as error:
        return "", str(error)
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
    has_rows = verify and "rows" in entry.facts
    return entry.about, _problem_of_rows(path.with_suffix(ROWS), entry.facts) if has_rows else ""


def _problem_of_rows(path: Path, facts: Mapping[str, Any]) -> str:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        return f"its images are not there as a whole: {error}"
    checksum = running_digest()
    for start in range(0, len(array), ROWS_AT_ONCE):
        checksum.update(np.ascontiguousarray(array[start : start + ROWS_AT_ONCE]).data)
    intact = list(array.shape) == facts["rows"] and checksum.hexdigest() == facts["checksum"]
    return "" if intact else "its images are damaged: their checksum is another"
