"""The store: what models gave, and images as models see them, kept under a digest of all that they come from.

An entry is a safetensors file of arrays and facts; that of an image set points to a `.npy` file beside it, which is
mapped into memory. Files are written under another name and then renamed, so that a process that is killed, or a disk
that is full, leaves no half of one; checksums find what was damaged later. Where several processes need the same entry
at once, one makes it and the others wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from filelock import FileLock, Timeout

from pytest_qreliab import workers
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import array_digest, digest

FORMAT = "1"  # of the files; another one's are left alone
ENTRY, ROWS, PART, LOCK = ".safetensors", ".npy", ".part", ".lock"
TRAINING = "training"  # the folder for training runs that were not finished, or whose result is not kept
ABANDONED = 24 * 3600  # seconds after which a file that was not finished belongs to no one
CHECK_EVERY = 1 / 20  # of the limit: when so much was written, the size of all is looked at

Arrays = Mapping[str, npt.NDArray[Any]]


class StoreWarning(UserWarning):
    """Something could not be kept, or was damaged: the run goes on, and makes it again."""


@dataclass(frozen=True)
class CacheEntry:
    """Arrays by name, what else is known, and what it is, in words."""

    arrays: Arrays
    facts: Mapping[str, Any]
    about: str


@dataclass(frozen=True)
class CacheFile:
    """An entry as `qreliab cache` lists it: `used` is when it was last read or written, in seconds since the epoch."""

    path: Path
    size: int
    used: float
    about: str = ""
    problem: str = ""


@dataclass
class Store:
    """Entries in `folder`; when they take more than `limit` bytes, those unused for longest are removed.

    No method raises for a disk that is full or a folder that cannot be written: `StoreWarning` says so once.
    """

    folder: Path
    limit: float = float("inf")
    _written: float = field(default=float("inf"), init=False)  # bytes, since the size of all was looked at
    _warned: bool = field(default=False, init=False)
    _digests: dict[Path, str] = field(default_factory=dict, init=False)

    def _path(self, key: str, suffix: str = ENTRY) -> Path:
        return self.folder / FORMAT / key[:2] / f"{key}{suffix}"

    def get(self, key: str) -> CacheEntry | None:
        """The entry, or None. One that is damaged is removed, with a warning."""
        path = self._path(key)
        try:
            entry = _read(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except _DamagedError as error:
            self._warn(f"{path} {error}; it is made again")
            path.unlink(missing_ok=True)
            return None
        except OSError as error:
            self._warn(f"{path} cannot be read: {error.strerror or error}")
            return None
        return entry

    def put(self, key: str, arrays: Arrays, facts: Mapping[str, Any] | None = None, about: str = "") -> None:
        """Keep an entry, in the place of one of the same key."""
        path = self._path(key)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        metadata = {"checksum": _checksum(arrays, facts or {}), "facts": json.dumps(facts or {}), "about": about}
        with self._replacing(path) as part:
            part.do(lambda file: file.write(safetensors.numpy.save(dict(arrays), metadata)))

    def get_or_make(self, key: str, about: str, make: Callable[[], tuple[Arrays, Mapping[str, Any]]]) -> CacheEntry:
        """The entry; where there is none, with the arrays and facts that `make` gives."""
        found = self.get(key)
        if found is None:
            arrays, facts = make()
            self.put(key, arrays, facts, about)
            found = CacheEntry(arrays, facts, about)
        return found

    @contextmanager
    def rows(
        self, key: str, shape: Sequence[int], about: str = ""
    ) -> Iterator[Callable[[npt.NDArray[np.uint8]], None]]:
        """What writes a uint8 array of that shape, row after row; it is kept if no error leaves the context."""
        checksum = hashlib.blake2b(digest_size=16)
        with self._replacing(self._path(key, ROWS)) as part:
            part.do(lambda file: np.lib.format.write_array_header_1_0(file, _header(shape)))

            def write(row: npt.NDArray[np.uint8]) -> None:
                data = np.ascontiguousarray(row).data
                checksum.update(data)
                part.do(lambda file: file.write(data))

            yield write
        if part.error is None:
            self.put(key, {}, {"rows": list(shape), "checksum": checksum.hexdigest()}, about)

    def open_pixels(self, key: str) -> npt.NDArray[np.uint8] | None:
        """The array that `rows` wrote, mapped into memory; None where it is not there as a whole."""
        entry, path = self.get(key), self._path(key, ROWS)
        if entry is None:
            return None
        try:
            array: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)
            if list(array.shape) == entry.facts["rows"] and array.dtype == np.uint8:
                return array
        except (OSError, ValueError):
            pass  # removed, cut short, or something else
        self._warn(f"{path} is not there as a whole; it is made again")
        return None

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """While one process is in here, others that want to make the same wait."""
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
        """Whether another process is making it right now."""
        try:
            with self._file_lock(key).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def _file_lock(self, key: str) -> FileLock:
        path = self._path(key, LOCK)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def digests(self, paths: Sequence[Path]) -> list[str]:
        """A digest of the content of each file, which is read again only where its size or times have changed.

        Raises InputError for files that cannot be read.
        """
        new = list(dict.fromkeys(path for path in paths if path not in self._digests))
        if new:
            stats = np.array([_stat(path) for path in new], dtype=np.int64)
            key = digest("files", [str(path.absolute()) for path in new])
            before = self.get(key)
            found = np.zeros((len(new), 16), np.uint8)
            changed = np.ones(len(new), bool)
            if before is not None:
                changed = (stats != before.arrays["stats"]).any(axis=1)
                found[~changed] = before.arrays["digests"][~changed]
            places = np.flatnonzero(changed).tolist()
            with ThreadPoolExecutor(min(8, workers.cores())) as pool:
                for place, value in zip(places, pool.map(_of_file, [new[i] for i in places]), strict=True):
                    found[place] = np.frombuffer(value, np.uint8)
            if places:
                about = f"digests of {len(new)} files, such as {new[0]}"
                self.put(key, {"stats": stats, "digests": found}, about=about)
            self._digests.update({path: row.tobytes().hex() for path, row in zip(new, found, strict=True)})
        return [self._digests[path] for path in paths]

    # Writing

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[_Part]:
        """A file that takes the place of `path` once the context is left; what the disk refuses is a warning."""
        part = _Part(path.with_name(f"{path.name}.{os.getpid()}{PART}"))
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

    def _cannot_write(self, error: OSError) -> None:
        self._warn(f"{self.folder} cannot be written, so that nothing is kept: {error.strerror or error}")

    def _warn(self, text: str) -> None:
        if not self._warned:
            warnings.warn(f"qreliab: {text}", StoreWarning, stacklevel=2)
        self._warned = True

    # Size

    def _count(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # another process may have removed it
            self._written += path.stat().st_size
        if self._written > CHECK_EVERY * self.limit:
            self._written = 0
            self.prune(self.limit)

    def prune(self, limit: float) -> int:
        """Remove the entries unused for longest until the others take at most `limit` bytes, and what was not
        finished. Returns how many bytes that was."""
        entries = sorted(self.stored(), key=lambda found: found.used)
        total, removed = sum(entry.size for entry in entries), 0
        for entry in entries:
            if total - removed <= limit:
                break
            _remove(entry.path)
            removed += entry.size
        for path in self.folder.glob(f"{FORMAT}/*/*"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                orphaned = path.suffix == ROWS and not path.with_suffix(ENTRY).exists()
                if (path.suffix in (PART, LOCK) or orphaned) and time.time() - stat.st_mtime > ABANDONED:
                    path.unlink()
                    removed += stat.st_size
        return removed

    @property
    def training(self) -> Path:
        return self.folder / TRAINING

    def stored(self, *, read: bool = False, verify: bool = False) -> Iterator[CacheFile]:
        """Every entry; with what it says of itself, if it is `read`, and with what is wrong, if it is to `verify`."""
        for path in [*sorted(self.folder.glob(f"{FORMAT}/*/*{ENTRY}")), *sorted(self.training.glob("*.pt"))]:
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
                try:
                    entry = _read(path)
                    about = entry.about
                    if verify and "rows" in entry.facts:
                        problem = _problem_of_rows(rows, entry.facts)
                except _DamagedError as error:
                    problem = str(error)
                except OSError as error:
                    problem = f"cannot be read: {error.strerror or error}"
            yield CacheFile(path, size, stat.st_mtime, about, problem)

    def remove(self, entry: CacheFile) -> None:
        _remove(entry.path)


class _Part:
    """A file that is being written. What the disk refuses is kept as `error`, after which nothing more is done."""

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
        try:
            if self._file is not None and self.error is None:
                write(self._file)
        except OSError as error:
            self.error = error

    def remove(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self.path.unlink(missing_ok=True)


class _DamagedError(Exception):
    """What is wrong with an entry."""


def _header(shape: Sequence[int]) -> dict[str, object]:
    return {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": tuple(shape)}


def _read(path: Path) -> CacheEntry:
    content = path.read_bytes()
    try:
        arrays = safetensors.numpy.load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        facts = json.loads(metadata["facts"])
        if metadata["checksum"] != _checksum(arrays, facts):
            raise _DamagedError("is damaged: its checksum is another")
        return CacheEntry(arrays, facts, metadata["about"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise _DamagedError(f"is damaged: {error}") from None


def _checksum(arrays: Arrays, facts: Mapping[str, Any]) -> str:
    return digest({name: array_digest(array) for name, array in arrays.items()}, json.dumps(facts))


def _problem_of_rows(path: Path, facts: Mapping[str, Any]) -> str:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        return f"its images are not there as a whole: {error}"
    found = hashlib.blake2b(digest_size=16)
    for start in range(0, len(array), 256):
        found.update(np.ascontiguousarray(array[start : start + 256]).data)
    right = list(array.shape) == facts["rows"] and found.hexdigest() == facts["checksum"]
    return "" if right else "its images are damaged: their checksum is another"


def _remove(path: Path) -> None:
    for suffix in (path.suffix, ROWS, LOCK):  # the entry first: without it the rest does not count
        with contextlib.suppress(OSError):
            path.with_suffix(suffix).unlink(missing_ok=True)


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _of_file(path: Path) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return found.digest()
