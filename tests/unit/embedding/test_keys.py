"""Keys: another model, code, library or file is another key."""

import shutil

import pytest

from pytest_qreliab.embedding import keys
from pytest_qreliab.models.loading import Loader


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """A copy of this package, whose code counts as this package's own."""
    copy = shutil.copytree(keys.PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(keys, "PACKAGE", copy)
    keys._own_code.cache_clear()
    yield copy
    keys._own_code.cache_clear()


@pytest.mark.parametrize("module", ["metrics/rank.py", "quantizers/engine/grid.py", "embedding/keys.py", "errors.py"])
def test_a_change_of_any_room_is_other_code(copied_package, module):
    before = keys.code_key()
    keys._own_code.cache_clear()
    assert keys.code_key() == before
    path = copied_package / module
    path.write_text(path.read_text() + "\n")
    keys._own_code.cache_clear()
    assert keys.code_key() != before


def test_a_copy_of_the_package_is_the_same_code(copied_package, monkeypatch):
    key = keys.code_key()
    monkeypatch.undo()
    keys._own_code.cache_clear()
    assert keys.code_key() == key


def test_a_model_without_files_or_version_has_no_key():
    def load():
        raise AssertionError("a model is loaded")

    def key(**more):
        return keys.loader_key(Loader(load=load, architecture="mine", **more), lambda paths: [])

    assert key() is None
    assert key(version="1") == key(version="1") != key(version="2")
