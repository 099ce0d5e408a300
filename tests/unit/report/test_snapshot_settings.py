"""The settings of the snapshot."""

import pytest

from pytest_qreliab.config.settings import Setting
from pytest_qreliab.errors import InputError
from pytest_qreliab.report.snapshot_settings import select_snapshot


@pytest.fixture(autouse=True)
def no_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


def select(folder: object, update: str = "none"):
    return select_snapshot(
        Setting(text=str(folder), origin="--qreliab-snapshot", given=True),
        Setting(text=update, origin="--qreliab-update", given=True),
    )


def test_without_a_folder_there_is_no_snapshot():
    assert select("none") is None


@pytest.mark.parametrize("update", ["new", "all"])
def test_a_folder_that_is_to_be_updated_need_not_exist(tmp_path, update):
    found = select(tmp_path / "accepted", update)
    assert (found.folder, found.update, dict(found.models)) == (tmp_path / "accepted", update, {})


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "it").touch()
    for update in ("none", "new"):
        with pytest.raises(InputError, match=r"^--qreliab-snapshot: .*/it is a file; give a folder"):
            select(tmp_path / "it", update)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert select("~/accepted", "new").folder == tmp_path / "accepted"


@pytest.mark.parametrize("ci", ["", " ", "0", "false", "False", "no"])
def test_a_variable_ci_that_says_no_is_as_none(tmp_path, monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    assert select(tmp_path, "new").update == "new"


@pytest.mark.parametrize("update", ["ci,all", "all, ci"])
def test_the_word_ci_may_stand_on_either_side(tmp_path, monkeypatch, update):
    monkeypatch.setenv("CI", "yes")
    assert select(tmp_path, update).update == "all"
    with pytest.raises(InputError, match="by mistake"):
        select(tmp_path, "all")


def test_a_run_that_accepts_nothing_is_as_any_other_in_ci(tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert select(tmp_path).update == "none"
