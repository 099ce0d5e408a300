"""Progress bars on a terminal, and silence anywhere else."""

import sys
from types import SimpleNamespace

import pytest

from pytest_qreliab.evaluation.progress import silent
from pytest_qreliab.plugin.progress import for_config


@pytest.fixture
def config():
    """Makes a config with a terminal reporter, or without one; `cleanups` are run at its end."""
    cleanups = []

    def config(reporter):
        plugins = {"terminalreporter": reporter}
        return SimpleNamespace(
            pluginmanager=SimpleNamespace(get_plugin=plugins.get), add_cleanup=cleanups.append, cleanups=cleanups
        )

    yield config
    for cleanup in cleanups:
        cleanup()


def test_without_a_terminal_there_is_silence(config):
    assert for_config(config(None)) is silent
    assert for_config(config(SimpleNamespace(isatty=False))) is silent


def test_a_bar_is_below_the_line_of_dots_which_goes_on_where_it_was(config, monkeypatch, tmp_path):
    reporter = SimpleNamespace(isatty=True, _tw=SimpleNamespace(width_of_current_line=7))
    with (tmp_path / "terminal").open("w+") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        made = config(reporter)
        with for_config(made)("tiny [w8]", 4) as advance:
            advance(1)
            advance(3)
        monkeypatch.undo()
        text = (tmp_path / "terminal").read_text()
    assert text.startswith("\n")
    assert "tiny [w8]" in text  # which is no markup
    assert "4/4" in text
    assert text.endswith("\x1b[1A\x1b[8G")
    assert len(made.cleanups) == 1


def test_the_line_of_dots_goes_on_after_an_error_too(config, monkeypatch, tmp_path):
    reporter = SimpleNamespace(isatty=True, _tw=SimpleNamespace(width_of_current_line=0))
    with (tmp_path / "terminal").open("w+") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        bar = for_config(config(reporter))
        with pytest.raises(ValueError, match="broken"), bar("it", 4):
            raise ValueError("broken")
        monkeypatch.undo()
    assert (tmp_path / "terminal").read_text().endswith("\x1b[1A\x1b[1G")
