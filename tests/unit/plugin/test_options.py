"""The options and ini settings, as pytest knows them."""

import pytest

from pytest_qreliab.config.settings import OPTIONS

pytestmark = pytest.mark.usefixtures("everything_imported")


def test_help_shows_every_option_with_its_environment_and_ini_name(pytester):
    result = pytester.runpytest_inprocess("--help")
    for name in ("suite", "models", "quantizers", "bits", "scopes", "benchmarks", "thresholds", "device"):
        result.stdout.fnmatch_lines([f"*--qreliab-{name}=*"])
        assert f"QRELIAB_{name.upper()}" in result.stdout.str()


def test_every_setting_is_an_option_and_an_ini_key_that_nothing_gives_by_default(pytester):
    config = pytester.parseconfig()
    for option in OPTIONS:
        assert config.getoption(option.ini) is None
        assert not config.getini(option.ini)
    assert config.getoption("qreliab_aa") is False
    assert config.getini("qreliab_testpaths") == []


def test_options_and_ini_keys_reach_their_settings(pytester):
    pytester.makeini("[pytest]\n" + "".join(f"{option.ini} = ini {option.name}\n" for option in OPTIONS))
    config = pytester.parseconfig(*(f"{option.flag}=given {option.name}" for option in OPTIONS), "--qreliab-aa")
    for option in OPTIONS:
        assert config.getoption(option.ini) == f"given {option.name}"
        assert config.getini(option.ini) == f"ini {option.name}"
    assert config.getoption("qreliab_aa") is True
