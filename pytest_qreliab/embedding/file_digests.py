"""Digests of files, which are read again only if they have changed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pytest_qreliab import workers
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.hashing import digest, file_digest


@dataclass(frozen=True)
class FileDigests:
    """The digests of files' contents, kept in a store beside the files' sizes and times."""

    store: Store
    sha256: bool = False  # the first 32 digits of the SHA-256, which others can compare, in place of our own
    _found: dict[Path, str] = field(default_factory=dict, init=False)

    def digests(self, paths: Sequence[Path]) -> list[str]:
        """Return a digest of the content of each file.

        Raises:
            InputError: A file cannot be read.
        """
        new = list(dict.fromkeys(path for path in paths if path not in self._found))
        if new:
            self._found.update(zip(new, self._digests_of(new), strict=True))
        return [self._found[path] for path in paths]

    def _digests_of(self, paths: Sequence[Path]) -> list[str]:
        stats = np.array([_stat(path) for path in paths], dtype=np.int64)
        key = digest("sha256" if self.sha256 else "files", [str(path.absolute()) for path in paths])
        before = self.store.get(key)
        digests = np.zeros((len(paths), 16), np.uint8)
        changed = np.ones(len(paths), bool)
        if before is not None:
            changed = (stats != before.arrays["stats"]).any(axis=1)
            digests[~changed] = before.arrays["digests"][~changed]
        places = np.flatnonzero(changed).tolist()
        with ThreadPoolExecutor(min(8, workers.cores())) as pool:
            for place, value in zip(places, pool.map(self._read, [paths[i] for i in places]), strict=True):
                digests[place] = np.frombuffer(bytes.fromhex(value), np.uint8)
        if places:
            about = f"digests of {len(paths)} files, such as {paths[0]}"
            self.store.put(key, {"stats": stats, "digests": digests}, about=about)
        return [row.tobytes().hex() for row in digests]

    def _read(self, path: Path) -> str:
        try:
            return file_digest(path, sha256=self.sha256)[:32]
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def sha256_digests(paths: Sequence[Path], store: Store | None) -> list[str]:
    """Return the first 32 digits of the SHA-256 of files, kept in a store if there is one.

    Raises:
        InputError: A file cannot be read.
    """
    if store is not None:
        return FileDigests(store, sha256=True).digests(paths)
    with TemporaryDirectory() as folder:
        return FileDigests(Store(Path(folder)), sha256=True).digests(paths)
