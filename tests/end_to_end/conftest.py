"""Runs of pytest in tests: no settings from outside, and what a refused run looks like."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    """Takes settings, the marks of GitHub Actions and those of a worker of pytest-xdist out of the environment."""
    for name in [name for name in os.environ if name.startswith(("QRELIAB_", "GITHUB_", "PYTEST_XDIST"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def refused():
    """Checks that a run ended with exit code 4 and these lines alone."""

    def check(result, *lines: str) -> None:
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {lines[0]}", *lines[1:]])
        assert len([line for line in result.errlines if line]) == len(lines)
        assert "Traceback" not in result.stdout.str() + result.stderr.str()

    return check
