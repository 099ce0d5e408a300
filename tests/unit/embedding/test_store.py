"""The store: what is kept is got again, whatever happens to processes, disks and files in between."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_qreliab.embedding import entry_files
from pytest_qreliab.embedding.store import Store, StoreWarning
from pytest_qreliab.hashing import digest

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


@pytest.mark.parametrize("harm", ["cut", "flipped", "emptied", "other"])
def test_a_damaged_entry_is_removed_and_made_again_with_a_warning(store, harm, list_files):
    key = digest("x")
    store.put(key, {"x": np.arange(1000.0)})
    (path,) = list_files(".safetensors")
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes({"cut": content[:-20], "flipped": content, "emptied": b"", "other": b"{" * 500}[harm])
    with pytest.warns(StoreWarning, match=r"is damaged.*made again"):
        assert store.get(key) is None
    assert not path.exists()


def test_entries_of_another_format_are_left_alone(store, monkeypatch, list_files):
    store.put(digest("x"), {})
    monkeypatch.setattr(entry_files, "FORMAT", "2")
    assert store.get(digest("x")) is None
    assert len(list_files(".safetensors")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are of POSIX")
@pytest.mark.parametrize("what", ["put", "rows"])
def test_a_full_disk_costs_a_warning_and_no_result(store, what, list_files, start_process):
    process = start_process(
        """
        import resource, warnings
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # then the kernel refuses to write on
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for key in "ab":
                if sys.argv[2] == "put":
                    store.put(digest(key), {"x": np.zeros(1_000_000, np.uint8)})
                else:
                    with pixels.rows(digest(key), (100, 10_000)) as keep:
                        for _ in range(100):
                            keep(np.zeros(10_000, np.uint8))
            assert store.get(digest("a")) is None
        print(*[warning.message for warning in caught], sep="|")
        """,
        what,
    )
    output = process.communicate()[0]
    assert process.returncode == 0
    assert output == f"qreliab: {store.folder} cannot be written, so that nothing is kept: File too large\n"
    assert not list_files()


def test_a_folder_that_cannot_be_made_costs_a_warning(tmp_path):
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "store")
    with pytest.warns(StoreWarning, match="cannot be written"):
        store.put(digest("x"), {"x": np.zeros(3, np.uint8)})
    assert store.get(digest("x")) is None
    with store.lock(digest("x")):
        assert not store.is_locked(digest("y"))


def test_of_several_processes_one_makes_an_entry_and_the_others_wait(store, start_process):
    code = """
        import time
        with store.lock(digest("x")):
            if store.get(digest("x")) is None:
                time.sleep(0.3)
                store.put(digest("x"), {"x": np.ones(100_000)})
                print("made")
        """
    several = [start_process(code) for _ in range(4)]
    assert "".join(process.communicate()[0] for process in several) == "made\n"
    assert not any(process.returncode for process in several)


def test_writers_of_the_same_entry_do_not_disturb_each_other(store, start_process):
    code = """
        for value in range(200):
            store.put(digest("x"), {"x": np.full(10_000, value)})
            assert len(set(store.get(digest("x")).arrays["x"])) == 1
        """
    several = [start_process(code) for _ in range(3)]
    assert [process.communicate() and process.returncode for process in several] == [0, 0, 0]
