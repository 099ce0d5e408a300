"""What goes when the store is full, and how its entries are listed."""

import os

import numpy as np

from pytest_qreliab.embedding import eviction
from pytest_qreliab.embedding.pixel_files import PixelFiles
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.hashing import digest


def test_what_was_unused_for_longest_goes_first(tmp_path, list_files):
    store = Store(tmp_path / "store", limit=100_000)
    for number, key in enumerate("abc"):
        store.put(digest(key), {"x": np.zeros(30_000, np.uint8)})
        (path,) = list_files(f"{digest(key)}.safetensors")
        os.utime(path, (number + 1, number + 1))
    assert store.get(digest("a")) is not None  # which is now used last
    store.put(digest("d"), {"x": np.zeros(30_000, np.uint8)})
    assert [store.get(digest(key)) is not None for key in "abcd"] == [True, False, True, True]
    assert sum(entry.size for entry in eviction.list_entries(store.folder)) < 100_000


def test_rows_count_and_go_with_their_entry(store, list_files):
    with PixelFiles(store).rows(digest("i"), (10, 100)) as keep:
        for _ in range(10):
            keep(np.ones(100, np.uint8))
    (entry,) = eviction.list_entries(store.folder)
    assert entry.size > 1000
    assert eviction.prune(store.folder, 0) == entry.size
    assert not list_files(".npy")
