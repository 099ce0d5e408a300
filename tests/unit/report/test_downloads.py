import io
import sys

import pytest

from pytest_qreliab.report import downloads


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    def show(stream, size, parts):
        monkeypatch.setattr(sys, "stderr", stream)
        with downloads.show("org/name weights.bin", size) as advance:
            for part in parts:
                advance(part)
        return stream.getvalue()

    return show


@pytest.mark.parametrize("size", [3 << 20, None])
def test_elsewhere_than_in_a_terminal_a_download_is_one_line(shown, size):
    expected = "qreliab: downloaded 3.0 MiB of org/name weights.bin\n"
    assert shown(io.StringIO(), size, [1 << 20, 2 << 20]) == expected


def test_in_a_terminal_its_bytes_are_shown_while_they_come(shown, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = shown(Terminal(), 3 << 20, [1 << 20, 2 << 20])
    assert "downloading org/name weights.bin" in text
    assert "MB" in text
    assert text.endswith("qreliab: downloaded 3.0 MiB of org/name weights.bin\n")


def test_what_is_small_comes_unseen(shown):
    assert shown(io.StringIO(), 1000, [1000]) == ""
