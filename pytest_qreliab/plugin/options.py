"""Declare the command-line options and ini settings."""

from __future__ import annotations

import pytest

from pytest_qreliab.config.settings import OPTIONS, SELF_CHECK, TESTPATHS_INI


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("qreliab", "reliability gates for quantized CLIP models (pytest-qreliab)")
    for option in OPTIONS:
        text = f"{option.help} (default: {option.default}; env {option.env}, ini {option.ini})"
        group.addoption(option.flag, dest=option.ini, metavar=option.metavar, default=None, help=text)
        parser.addini(option.ini, option.help, type="string", default=None)
    group.addoption(
        SELF_CHECK,
        dest="qreliab_aa",
        action="store_true",
        help="A/A self-check, in place of the gates' tests: how often they fail where there is nothing to find, and "
        "the least harm that they would find",
    )
    parser.addini(
        TESTPATHS_INI,
        "a project's own reliability tests, run with the shipped suite when no path is given",
        type="paths",
        default=[],
    )
