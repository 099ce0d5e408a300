"""The files of the store: what is in them, and how they are written."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from pytest_qreliab.embedding.entry_files import (
    CacheEntry,
    DamagedEntryError,
    PartFile,
    encode_entry,
    entry_path,
    read_entry,
)

ENTRY = CacheEntry({"x": np.arange(6.0).reshape(2, 3).T, "n": np.array([7], np.int64)}, {"scale": 1.5}, "a test")


def test_an_entry_is_a_safetensors_file_that_says_what_it_is(tmp_path):
    path = tmp_path / "e.safetensors"
    path.write_bytes(encode_entry(ENTRY))
    with safetensors.safe_open(path, "np") as file:
        assert set(file.keys()) == {"x", "n"}
        np.testing.assert_array_equal(file.get_tensor("x"), ENTRY.arrays["x"])
        assert json.loads(file.metadata()["facts"]) == {"scale": 1.5}
        assert file.metadata()["about"] == "a test"
    assert (read_entry(path).facts, read_entry(path).about) == ({"scale": 1.5}, "a test")


def test_facts_or_arrays_of_another_entry_are_damage(tmp_path):
    path = tmp_path / "e.safetensors"
    path.write_bytes(encode_entry(ENTRY))
    with safetensors.safe_open(path, "np") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for other, facts in (({**arrays, "n": arrays["n"] + 1}, '{"scale": 1.5}'), (arrays, '{"scale": 2.5}')):
        path.write_bytes(safetensors.numpy.save(other, {**metadata, "facts": facts}))
        with pytest.raises(DamagedEntryError, match="its checksum is another"):
            read_entry(path)
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    assert read_entry(path).facts == ENTRY.facts


def test_a_safetensors_file_of_someone_else_is_damage(tmp_path):
    path = tmp_path / "e.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    with pytest.raises(DamagedEntryError, match="is damaged: '__metadata__'"):
        read_entry(path)


def test_files_of_a_key_lie_in_a_folder_of_its_first_letters(tmp_path):
    assert entry_path(tmp_path, "abcd", ".npy").relative_to(tmp_path).parts == ("1", "ab", "abcd.npy")
    assert entry_path(tmp_path, "abcd").name == "abcd.safetensors"


def test_a_part_file_is_removed_unless_it_was_renamed(tmp_path):
    for kept in (True, False):
        part = PartFile(tmp_path / "new" / "it.part")
        part.do(lambda file: file.write(b"content"))
        part.do(lambda file: file.close())
        if kept:
            part.path.rename(tmp_path / "it")
        part.remove()
        assert part.error is None
    assert (tmp_path / "it").read_bytes() == b"content"
    assert list((tmp_path / "new").iterdir()) == []


def test_after_the_first_error_of_the_disk_nothing_more_is_written(tmp_path):
    def fail(file) -> None:
        raise OSError(28, "No space left on device")

    part = PartFile(tmp_path / "it.part")
    part.do(fail)
    done = []
    part.do(done.append)
    assert (part.error.errno, done) == (28, [])
    part.remove()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    nowhere = PartFile(tmp_path / "file" / "it.part")
    nowhere.do(done.append)
    assert isinstance(nowhere.error, OSError)
    assert done == []
