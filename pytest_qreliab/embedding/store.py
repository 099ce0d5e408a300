"""The store of model outputs, each under a digest of everything that it depends on."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_qreliab.embedding import entry_files, eviction
from pytest_qreliab.embedding.entry_files import LOCK, PART, Arrays, CacheEntry, DamagedEntryError, PartFile

CHECK_EVERY = 1 / 20  # of the limit: once so many bytes are written, the size of the whole store is looked at

Make = Callable[[], tuple[Arrays, Mapping[str, Any]]]


class StoreWarning(UserWarning):
    """A warning that something could not be kept, or was damaged: the run goes on, and makes it again."""


@dataclass
class Store:
    """The entries in a folder, which processes share.

    If several processes need the same entry, one makes it and the others wait. No method raises for a disk that is full
    or a folder that cannot be written: `StoreWarning` says so once.
    """

    folder: Path
    limit: float = float("inf")  # bytes; beyond them the entries unused for longest are removed
    _written: float = field(default=float("inf"), init=False)  # bytes, since the size of all was looked at
    _warned: bool = field(default=False, init=False)

    @property
    def training(self) -> Path:
        """The folder for training runs that were not finished."""
        return self.folder / entry_files.TRAINING

    def path(self, key: str, suffix: str = entry_files.ENTRY) -> Path:
        """Return the path of a file that belongs to a key."""
        return entry_files.entry_path(self.folder, key, suffix)

    def get(self, key: str) -> CacheEntry | None:
        """Return the entry, or None. One that is damaged is removed, with a warning."""
        path = self.path(key)
        try:
            entry = entry_files.read_entry(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except DamagedEntryError as error:
            self.warn(f"{path} {error}; it is made again")
            path.unlink(missing_ok=True)
            return None
        except OSError as error:
            self.warn(f"{path} cannot be read: {error.strerror or error}")
            return None
        return entry

    def put(self, key: str, arrays: Arrays, facts: Mapping[str, Any] | None = None, about: str = "") -> None:
        """Keep an entry, in the place of one of the same key."""
        content = entry_files.encode_entry(CacheEntry(arrays, facts or {}, about))
        with self.replacing(self.path(key)) as part:
            part.do(lambda file: file.write(content))

    def get_or_make(self, key: str, about: str, make: Make) -> CacheEntry:
        """Return the entry; if there is none, keep one of the arrays and facts that `make` returns."""
        entry = self.get(key)
        if entry is None:
            arrays, facts = make()
            self.put(key, arrays, facts, about)
            entry = CacheEntry(arrays, facts, about)
        return entry

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Make other processes that enter a context of the same key wait."""
        lock = self._file_lock(key)
        try:
            lock.acquire()
        except OSError as error:
            self._cannot_write(error)
        try:
            yield
        finally:
            lock.release(force=True)

    def is_locked(self, key: str) -> bool:
        """Return whether another process is in a context of that key right now."""
        try:
            with self._file_lock(key).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def _file_lock(self, key: str) -> FileLock:
        path = self.path(key, LOCK)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[PartFile]:
        """Yield a file that takes the place of `path` once the context is left. Errors of the disk are a warning."""
        part = PartFile(path.with_name(f"{path.name}.{os.getpid()}{PART}"))
        try:
            yield part
            part.do(lambda file: file.close())
            part.do(lambda file: part.path.replace(path))
            if part.error is None:
                self._count(path)
            else:
                self._cannot_write(part.error)
        finally:
            part.remove()

    def warn(self, text: str) -> None:
        """Warn, unless that was done before."""
        if not self._warned:
            warnings.warn(f"qreliab: {text}", StoreWarning, stacklevel=2)
        self._warned = True

    def _cannot_write(self, error: OSError) -> None:
        self.warn(f"{self.folder} cannot be written, so that nothing is kept: {error.strerror or error}")

    def _count(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # another process may have removed it
            self._written += path.stat().st_size
        if self._written > CHECK_EVERY * self.limit:
            self._written = 0
            eviction.prune(self.folder, self.limit)
