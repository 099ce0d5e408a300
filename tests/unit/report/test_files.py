"""Files of reports, written whole or not at all."""

from pathlib import Path

import pydantic
import pytest

from pytest_qreliab.config.settings import SettingValue
from pytest_qreliab.errors import InputError
from pytest_qreliab.report import files


def test_text_is_written_as_utf_8_and_bytes_as_they_are(tmp_path):
    path = tmp_path / "it"
    files.write(path, "ä\n")
    assert files.read(path) == b"\xc3\xa4\n"
    files.write(path, b"\xff")
    assert files.read(path) == b"\xff"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_keeps_its_content_and_is_named(tmp_path, monkeypatch):
    path = tmp_path / "it"
    files.write(path, "before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write(path, "after")
    assert caught.value.filename == str(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_room_is_made_for_a_file_and_an_older_one_stays_until_it_is_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = files.prepare(SettingValue("new/it.json", "--qreliab-json"))
    assert path == tmp_path / "new" / "it.json"
    assert list(path.parent.iterdir()) == []
    path.write_text("of a run before")
    assert files.prepare(SettingValue("new/it.json", "--qreliab-json")) == path
    assert path.read_text() == "of a run before"
    files.remove_old(path)
    files.remove_old(path)
    assert not path.exists()
    assert files.prepare(SettingValue("none", "--qreliab-json")) is None


def test_a_file_of_an_ini_file_lies_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = SettingValue("out/it.json", "ini qreliab_json", tmp_path / "project")
    assert files.prepare(value) == tmp_path / "project" / "out" / "it.json"


def test_a_folder_or_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^--qreliab-json: .* is no file; give a file"):
        files.prepare(SettingValue(str(tmp_path), "--qreliab-json"))
    with pytest.raises(InputError, match=r"^--qreliab-json: .*it\.json cannot be written: "):
        files.prepare(SettingValue(str(tmp_path / "file" / "it.json"), "--qreliab-json"))
    assert (tmp_path / "file").exists()


def test_the_first_problem_of_a_document_is_told_with_its_place():
    class Model(pydantic.BaseModel):
        sizes: list[int]

    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate({"sizes": [1, "x", "y"]})
    assert files.first_problem(caught.value).startswith("sizes.1: Input should be a valid integer")


def test_a_name_becomes_one_that_every_file_system_takes(tmp_path):
    assert files.safe_name("local-dir:/a b/[red]/w4a8") == "local-dir_a_b_red_w4a8"
    first, second = files.safe_name("x" * 300), files.safe_name("x" * 301)
    assert first != second
    assert len(first) <= files.LONGEST_NAME
    (tmp_path / f"{first}.json.1234.part").touch()


def test_text_that_utf_8_cannot_hold_is_written_as_an_escape(tmp_path):
    files.write(tmp_path / "it.csv", "a\udcff")
    assert (tmp_path / "it.csv").read_text() == "a\\udcff"
