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
    assert resolve(nothing, ini).bits == Setting("2", "ini qreliab_bits", given=True)
    assert resolve(nothing, ini).device == Setting("auto", "--qreliab-device", given=False)
    monkeypatch.setenv("QRELIAB_BITS", "3")
    assert resolve(nothing, ini).bits == Setting("3", "QRELIAB_BITS", given=True)
    assert resolve({"qreliab_bits": "4"}.get, ini).bits == Setting("4", "--qreliab-bits", given=True)


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("QRELIAB_BITS", "")
    assert not resolve(nothing, nothing).bits.given


@pytest.mark.parametrize(("option", "given"), [("bits", True), ("json", True), ("cache_size", False)])
def test_an_option_that_changes_no_measurement_makes_no_plan(option, given):
    settings = resolve({f"qreliab_{option}": "1GB"}.get, nothing)
    assert getattr(settings, option).given
    assert settings.given == given


def test_settings_come_in_the_order_of_the_options():
    assert [setting.origin for setting in resolve(nothing, nothing)] == [option.flag for option in OPTIONS]


def test_values_are_split_at_commas_where_there_may_be_many():
    setting = Setting(" w4, ,w8 ", "--qreliab-bits", given=True)
    assert [value.text for value in setting.values(many=True)] == ["w4", "w8"]
    assert [value.text for value in setting.values(many=False)] == ["w4, ,w8"]
    with pytest.raises(InputError, match="--qreliab-bits: is empty; give at least one value"):
        Setting(" , ", "--qreliab-bits", given=True).values(many=True)


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500 * 2**20), ("1.5 GiB", 1.5 * 2**30), ("1kb", 1024), ("2TB", 2 * 2**40)]
)
def test_sizes_are_in_powers_of_1024(text, size):
    assert parse_size(Setting(text, "--size", given=True)) == size


@pytest.mark.parametrize("text", ["", "20", "GB", "-1GB", "1e3MB", "20 gigabytes"])
def test_a_text_that_is_no_size(text):
    with pytest.raises(InputError, match=r"--size: '.*' is no size; write 500MB or 20GB"):
        parse_size(Setting(text, "--size", given=True))
