"""The command-line options and ini settings, as pytest knows them, and what an invocation asks for by them."""

from __future__ import annotations

import pytest

from pytest_qreliab.config.settings import OPTIONS, SELF_CHECK, TESTPATHS_INI, Settings, resolve
from pytest_qreliab.errors import InputError


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and ini setting of the plugin."""
    group = parser.getgroup("qreliab", "reliability gates for quantized CLIP models (pytest-qreliab)")
    for option in OPTIONS:
        text = f"{option.help} (default: {option.default}; env {option.env}, ini {option.ini})"
        group.addoption(option.flag, dest=option.ini, metavar=option.metavar, default=None, help=text)
        parser.addini(option.ini, option.help, type="string", default=None)
    group.addoption(
        SELF_CHECK,
        dest="qreliab_aa",
        action="store_true",
        help="run an A/A self-check instead of the tests: how often the gates fail without a difference, and the "
        "smallest harm they would catch",
    )
    parser.addini(
        TESTPATHS_INI,
        "your own reliability tests, run with the shipped suite if no path is given",
        type="paths",
        default=[],
    )


def read_settings(config: pytest.Config) -> Settings:
    """Return the settings of a run.

    Raises:
        InputError: The value of an ini key is no text.
    """
    folder = None if config.inipath is None else config.inipath.parent
    return resolve(config.getoption, lambda key: _read_ini(config, key), folder)


def _read_ini(config: pytest.Config, key: str) -> object:
    """Return the value of an ini key as the file has it."""
    # pytest 9 knows the types of TOML, and refuses a list or a truth value for an option that is text.
    raw = getattr(config, "_inicfg", {}).get(key)
    return config.getini(key) if raw is None else raw.value


def settings_are_given(config: pytest.Config) -> bool:
    """Return whether the user set any option that changes what is measured."""
    try:
        return read_settings(config).given
    except InputError:
        return True


def only_lists(config: pytest.Config) -> bool:
    """Return whether the invocation asks for a list of something, such as fixtures, and not for tests."""
    lists = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow")
    return any(config.getoption(name, False) for name in lists)


def runs_tests(config: pytest.Config) -> bool:
    """Return whether the invocation runs the tests that it collects."""
    return not any(config.getoption(name, False) for name in ("collectonly", "setuponly", "setupplan"))


def is_on_command_line(config: pytest.Config) -> bool:
    """Return whether the user typed any option of the plugin, which `addopts` in an ini file is not."""
    return any(str(arg).startswith("--qreliab-") for arg in config.invocation_params.args)
