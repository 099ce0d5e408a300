"""Decoded images in the store: mapped once they are whole, and never half of them."""

import os
import signal
import subprocess

import numpy as np
import pytest

from pytest_qreliab.embedding import eviction
from pytest_qreliab.embedding.pixel_files import PixelFiles
from pytest_qreliab.embedding.store import StoreWarning
from pytest_qreliab.hashing import digest


@pytest.fixture
def pixels(store):
    return PixelFiles(store)


def test_rows_are_mapped_once_they_are_whole(store, pixels):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    with pixels.rows(digest("i"), images.shape) as keep:
        for image in images[:4]:
            keep(image)
        assert pixels.open_pixels(digest("i")) is None
        keep(images[4])
    mapped = pixels.open_pixels(digest("i"))
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, images)


def test_rows_are_not_kept_where_an_error_comes_between(store, list_files, pixels):
    def interrupted():
        with pixels.rows(digest("i"), (3, 2)) as keep:
            keep(np.zeros(2, np.uint8))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert pixels.open_pixels(digest("i")) is None
    assert not list_files()


@pytest.mark.parametrize("lost", ["removed", "cut"])
def test_rows_that_are_lost_are_made_again(store, lost, list_files, pixels):
    with pixels.rows(digest("i"), (3, 2)) as keep:
        for _ in range(3):
            keep(np.ones(2, np.uint8))
    (path,) = list_files(".npy")
    content = path.read_bytes()
    path.unlink()
    if lost == "cut":
        path.write_bytes(content[:-1])
    with pytest.warns(StoreWarning, match="not there as a whole"):
        assert pixels.open_pixels(digest("i")) is None


def test_a_process_that_is_killed_leaves_no_half_of_anything(store, list_files, start_process, pixels):
    process = start_process(
        """
        with store.lock(digest("i")), pixels.rows(digest("i"), (1000, 1000)) as keep:
            for row in range(1000):
                keep(np.ones(1000, np.uint8))
                if row == 500:
                    print("half", flush=True)
                    sys.stdin.read()
        """,
        stdin=subprocess.PIPE,
    )
    assert process.stdout.readline() == "half\n"
    assert store.is_locked(digest("i"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert pixels.open_pixels(digest("i")) is None
    assert not store.is_locked(digest("i"))
    assert len(list_files(".part")) == 1
    with pixels.rows(digest("i"), (1, 2)) as keep:
        keep(np.ones(2, np.uint8))
    assert pixels.open_pixels(digest("i")).shape == (1, 2)
    for path in list_files(".part"):
        os.utime(path, (0, 0))  # long ago
    eviction.prune(store.folder, float("inf"))
    assert not list_files(".part")
