from pathlib import Path

import pytest

from pytest_qreliab.config.settings import OPTIONS, Setting, parse_size, resolve
from pytest_qreliab.errors import InputError


def nothing(name: str) -> None:
    return None


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)


def test_the_command_line_is_above_the_environment_and_that_above_ini_and_default(monkeypatch):
    ini = {"qreliab_bits": "2", "qreliab_device": ""}.get
    assert resolve(nothing, ini).bits == Setting(text="2", origin="ini qreliab_bits", given=True)
    assert resolve(nothing, ini).device == Setting(text="auto", origin="--qreliab-device", given=False)
    monkeypatch.setenv("QRELIAB_BITS", "3")
    assert resolve(nothing, ini).bits == Setting(text="3", origin="QRELIAB_BITS", given=True)
    assert resolve({"qreliab_bits": "4"}.get, ini).bits == Setting(text="4", origin="--qreliab-bits", given=True)


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("QRELIAB_BITS", "")
    assert not resolve(nothing, nothing).bits.given


@pytest.mark.parametrize(("option", "given"), [("bits", True), ("json", True), ("cache_size", False)])
def test_an_option_that_changes_no_measurement_makes_no_plan(option, given):
    settings = resolve({f"qreliab_{option}": "1GB"}.get, nothing)
    assert getattr(settings, option).given
    assert settings.given == given


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("w4,w8", "w4,w8"),
        (["w4", "w8"], "w4,w8"),
        ([4, 8], "4,8"),
        (4, "4"),
        (False, "no"),
        (True, "yes"),
        ([True], "yes"),
        ([], ""),
    ],
)
def test_an_ini_file_may_have_what_toml_has(value, text):
    assert resolve(nothing, {"qreliab_bits": value}.get).bits.text == text


@pytest.mark.parametrize("value", [4.5, {"a": 1}, [["w4"]], ["w4", None], [1.5]])
def test_what_is_no_text_in_an_ini_file_is_refused(value):
    with pytest.raises(InputError, match=r'^ini qreliab_bits: .* is no text; write "w4,w8"'):
        resolve(nothing, {"qreliab_bits": value}.get)
    assert resolve({"qreliab_bits": "w4"}.get, {"qreliab_bits": value}.get).bits.text == "w4"


def test_only_paths_of_an_ini_file_start_in_its_folder(monkeypatch, tmp_path):
    ini = {"qreliab_json": "r.json"}.get

    def path(getoption=nothing) -> Path:
        (value,) = resolve(getoption, ini, tmp_path).json.values(many=False)
        return value.path()

    assert path() == tmp_path / "r.json"
    assert path({"qreliab_json": "r.json"}.get) == Path("r.json")
    monkeypatch.setenv("QRELIAB_JSON", "r.json")
    assert path() == Path("r.json")
    monkeypatch.setenv("QRELIAB_JSON", "~/r.json")
    assert path() == Path.home() / "r.json"


def test_settings_come_in_the_order_of_the_options():
    assert [setting.origin for setting in resolve(nothing, nothing)] == [option.flag for option in OPTIONS]


def test_values_are_split_at_commas_and_line_ends_where_there_may_be_many():
    lines = Setting(text="\nw4\nw8, w2\n", origin="ini qreliab_bits", given=True)  # as ini files have lists
    assert [value.text for value in lines.values(many=True)] == ["w4", "w8", "w2"]
    setting = Setting(text=" w4, ,w8 ", origin="--qreliab-bits", given=True)
    assert [value.text for value in setting.values(many=True)] == ["w4", "w8"]
    assert [value.text for value in setting.values(many=False)] == ["w4, ,w8"]
    with pytest.raises(InputError, match="--qreliab-bits: is empty; give at least one value"):
        Setting(text=" , ", origin="--qreliab-bits", given=True).values(many=True)


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500 * 2**20), ("1.5 GiB", 1.5 * 2**30), ("1kb", 1024), ("2TB", 2 * 2**40)]
)
def test_sizes_are_in_powers_of_1024(text, size):
    assert parse_size(Setting(text=text, origin="--size", given=True)) == size


@pytest.mark.parametrize("text", ["", "20", "GB", "-1GB", "1e3MB", "20 gigabytes"])
def test_a_text_that_is_no_size(text):
    with pytest.raises(InputError, match=r"--size: '.*' is no size; write 500MB or 20GB"):
        parse_size(Setting(text=text, origin="--size", given=True))
