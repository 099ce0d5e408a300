"""The store: what is kept is got again, whatever happens to processes, disks and files in between."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_qreliab.embedding import store as module
from pytest_qreliab.embedding.store import Store, StoreWarning
from pytest_qreliab.hashing import digest


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def of_size(store, key: str, size: int) -> None:
    store.put(digest(key), {"x": np.zeros(size, np.uint8)})


def files(store, suffix: str) -> list:
    return sorted(path for path in store.folder.rglob(f"*{suffix}") if path.is_file())


PRELUDE = """
import sys
import numpy as np
from pathlib import Path
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.hashing import digest
store = Store(Path(sys.argv[1]))
"""


def started(code: str, *args: object, **more: object) -> subprocess.Popen:
    """Python at work on the store, in a process of its own."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)


# Entries

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8])
NAMES = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda name: name != "__metadata__")


@given(
    st.dictionaries(NAMES, arrays.arrays(DTYPES, arrays.array_shapes(min_dims=1)), max_size=3),
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False) | st.integers(-9, 9) | st.text(max_size=5)),
)
def test_what_is_put_is_got(tmp_path_factory, values, facts):
    store = Store(tmp_path_factory.getbasetemp() / "property")
    store.put(digest("some"), values, facts, "of a test")
    found = store.get(digest("some"))
    assert (found.facts, found.about) == (facts, "of a test")
    assert found.arrays.keys() == values.keys()
    for name, array in values.items():
        assert (found.arrays[name].dtype, found.arrays[name].tobytes()) == (array.dtype, array.tobytes())


def test_a_digest_tells_values_from_each_other_and_not_orders_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(1), digest("1"), digest([1]), digest(1, 1), digest(None), digest(1.5)}) == 6


@pytest.mark.parametrize("harm", ["cut", "flipped", "emptied", "other"])
def test_a_damaged_entry_is_removed_and_made_again_with_a_warning(store, harm):
    key = digest("x")
    store.put(key, {"x": np.arange(1000.0)})
    (path,) = files(store, ".safetensors")
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes({"cut": content[:-20], "flipped": content, "emptied": b"", "other": b"{" * 500}[harm])
    with pytest.warns(StoreWarning, match=r"is damaged.*made again"):
        assert store.get(key) is None
    assert not path.exists()


def test_entries_of_another_format_are_left_alone(store, monkeypatch):
    store.put(digest("x"), {})
    monkeypatch.setattr(module, "FORMAT", "2")
    assert store.get(digest("x")) is None
    assert len(files(store, ".safetensors")) == 1


# Rows


def test_rows_are_mapped_once_they_are_whole(store):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    with store.rows(digest("i"), images.shape) as keep:
        for image in images[:4]:
            keep(image)
        assert store.open_pixels(digest("i")) is None
        keep(images[4])
    mapped = store.open_pixels(digest("i"))
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, images)


def test_rows_are_not_kept_where_an_error_comes_between(store):
    def interrupted():
        with store.rows(digest("i"), (3, 2)) as keep:
            keep(np.zeros(2, np.uint8))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert store.open_pixels(digest("i")) is None
    assert not files(store, "")


@pytest.mark.parametrize("lost", ["removed", "cut"])
def test_rows_that_are_lost_are_made_again(store, lost):
    with store.rows(digest("i"), (3, 2)) as keep:
        for _ in range(3):
            keep(np.ones(2, np.uint8))
    (path,) = files(store, ".npy")
    content = path.read_bytes()
    path.unlink()
    if lost == "cut":
        path.write_bytes(content[:-1])
    with pytest.warns(StoreWarning, match="not there as a whole"):
        assert store.open_pixels(digest("i")) is None


# What befalls processes and disks


def test_a_process_that_is_killed_leaves_no_half_of_anything(store):
    process = started(
        """
        with store.lock(digest("i")), store.rows(digest("i"), (1000, 1000)) as keep:
            for row in range(1000):
                keep(np.ones(1000, np.uint8))
                if row == 500:
                    print("half", flush=True)
                    sys.stdin.read()
        """,
        store.folder,
        stdin=subprocess.PIPE,
    )
    assert process.stdout.readline() == "half\n"
    assert store.is_locked(digest("i"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert store.open_pixels(digest("i")) is None
    assert not store.is_locked(digest("i"))
    assert len(files(store, ".part")) == 1
    with store.rows(digest("i"), (1, 2)) as keep:
        keep(np.ones(2, np.uint8))
    assert store.open_pixels(digest("i")).shape == (1, 2)
    for path in files(store, ".part"):
        os.utime(path, (0, 0))  # long ago
    store.prune(float("inf"))
    assert not files(store, ".part")


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are of POSIX")
@pytest.mark.parametrize("what", ["put", "rows"])
def test_a_full_disk_costs_a_warning_and_no_result(store, what):
    process = started(
        """
        import resource, warnings
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # then the kernel refuses to write on
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for key in "ab":
                if sys.argv[2] == "put":
                    store.put(digest(key), {"x": np.zeros(1_000_000, np.uint8)})
                else:
                    with store.rows(digest(key), (100, 10_000)) as keep:
                        for _ in range(100):
                            keep(np.zeros(10_000, np.uint8))
            assert store.get(digest("a")) is None
        print(*[warning.message for warning in caught], sep="|")
        """,
        store.folder,
        what,
    )
    output = process.communicate()[0]
    assert process.returncode == 0
    assert output == f"qreliab: {store.folder} cannot be written, so that nothing is kept: File too large\n"
    assert not files(store, "")


def test_a_folder_that_cannot_be_made_costs_a_warning(tmp_path):
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "store")
    with pytest.warns(StoreWarning, match="cannot be written"):
        of_size(store, "x", 3)
    assert store.get(digest("x")) is None
    with store.lock(digest("x")):
        assert not store.is_locked(digest("y"))


def test_of_several_processes_one_makes_an_entry_and_the_others_wait(store):
    code = """
        import time
        with store.lock(digest("x")):
            if store.get(digest("x")) is None:
                time.sleep(0.3)
                store.put(digest("x"), {"x": np.ones(100_000)})
                print("made")
        """
    several = [started(code, store.folder) for _ in range(4)]
    assert "".join(process.communicate()[0] for process in several) == "made\n"
    assert not any(process.returncode for process in several)


def test_writers_of_the_same_entry_do_not_disturb_each_other(store):
    code = """
        for value in range(200):
            store.put(digest("x"), {"x": np.full(10_000, value)})
            assert len(set(store.get(digest("x")).arrays["x"])) == 1
        """
    several = [started(code, store.folder) for _ in range(3)]
    assert [process.communicate() and process.returncode for process in several] == [0, 0, 0]


# Size


def test_what_was_unused_for_longest_goes_first(tmp_path):
    store = Store(tmp_path / "store", limit=100_000)
    for number, key in enumerate("abc"):
        of_size(store, key, 30_000)
        (path,) = files(store, f"{digest(key)}.safetensors")
        os.utime(path, (number + 1, number + 1))
    assert store.get(digest("a")) is not None  # which is now used last
    of_size(store, "d", 30_000)
    assert [store.get(digest(key)) is not None for key in "abcd"] == [True, False, True, True]
    assert sum(entry.size for entry in store.stored()) < 100_000


def test_rows_count_and_go_with_their_entry(store):
    with store.rows(digest("i"), (10, 100)) as keep:
        for _ in range(10):
            keep(np.ones(100, np.uint8))
    (entry,) = store.stored()
    assert entry.size > 1000
    assert store.prune(0) == entry.size
    assert not files(store, ".npy")


# Digests of files


def test_files_are_read_again_only_where_they_changed(store, monkeypatch, tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    read = []
    of_file = module._of_file
    monkeypatch.setattr(module, "_of_file", lambda path: read.append(path) or of_file(path))
    before = store.digests([*paths, paths[0]])
    assert len(set(before)) == 3
    assert before[0] == before[3]
    assert sorted(read) == paths
    read.clear()
    assert Store(store.folder).digests([*paths, paths[0]]) == before
    assert not read
    times = paths[1].stat()
    time.sleep(0.02)
    paths[1].write_text("B")  # of the same size, and made to look as old
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(paths[2])  # touched
    after = Store(store.folder).digests(paths)
    assert sorted(read) == paths[1:]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]
