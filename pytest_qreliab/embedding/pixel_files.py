"""Decoded images in the store, as files that are mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pytest_qreliab.data.images import Pixels
from pytest_qreliab.embedding.entry_files import ROWS
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.hashing import running_digest


@dataclass(frozen=True)
class PixelFiles:
    """The uint8 arrays of a store, each in a file beside its entry."""

    store: Store

    @contextmanager
    def rows(self, key: str, shape: Sequence[int], about: str = "") -> Iterator[Callable[[Pixels], None]]:
        """Yield a function that writes an array row after row. It is kept if no error leaves the context.

        Args:
            key: The digest of what the array depends on.
            shape: The shape of the whole array.
            about: What the array is, in words.
        """
        checksum = running_digest()
        header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": tuple(shape)}
        with self.store.replacing(self.store.path(key, ROWS)) as part:
            part.do(lambda file: np.lib.format.write_array_header_1_0(file, header))

            def write(row: Pixels) -> None:
                data = np.ascontiguousarray(row).data
                checksum.update(data)
                part.do(lambda file: file.write(data))

            yield write
        if part.error is None:
            self.store.put(key, {}, {"rows": list(shape), "checksum": checksum.hexdigest()}, about)

    def open_pixels(self, key: str) -> Pixels | None:
        """Return the array that `rows` wrote, mapped into memory; None if it is not there as a whole."""
        entry, path = self.store.get(key), self.store.path(key, ROWS)
        if entry is None:
            return None
        try:
            array: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)
            if list(array.shape) == entry.facts["rows"] and array.dtype == np.uint8:
                return array
        except (OSError, ValueError):
            pass  # removed, cut short, or something else
        self.store.warn(f"{path} is not there as a whole; it is made again")
        return None
