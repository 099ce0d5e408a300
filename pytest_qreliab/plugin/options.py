"""The command-line options and ini settings, as pytest knows them."""

from __future__ import annotations

import pytest

from pytest_qreliab.config.settings import OPTIONS, SELF_CHECK, TESTPATHS_INI


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
