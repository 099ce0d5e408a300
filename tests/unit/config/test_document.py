from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.config.document import PACKAGE, display_path, read
from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.errors import InputError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\ngates: {ece: {max: 1}}\ngates: {}\n", r":3: .*'gates' is given twice, first on line 2"),
        ("version: 1\ngates: [\n", r":3: not valid YAML"),
        ("version: 1\ngates: !!python/object/apply:os.system ['true']\n", r":2: not valid YAML"),
        ("version: 1\ngates: &a {ece: *a}\n", r":2: not valid YAML: an alias refers to itself"),
        (
            "version: 1\na: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
            "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n",
            r":2: not valid YAML: .*aliases multiply without end",
        ),
        ("version: 1\ngates: 2020-99-99\n", r":2: not valid YAML: month must be"),
        ("? [a]\n: 1\n", r":1: not valid YAML: a key is no plain word, but a list"),
        ("no: 1\n", r":1: not valid YAML: YAML reads the key no as False; write it in quotes: \"no\""),
        ("1: 1\n007: 1\n", r":2: not valid YAML: YAML reads the key 007 as 7; write it in quotes: \"007\""),
        ("1_000: 1\n", r":1: not valid YAML: YAML reads the key 1_000 as 1000; write it in quotes"),
        ("2024-01-01: 1\n", r":1: not valid YAML: YAML reads the key 2024-01-01 as .*; write it in quotes"),
        ('a: "x\\0y"\n', r":1: not valid YAML: a text with the character NUL"),
        ("", r":1: expected a mapping of keys, found nothing"),
        ("- 1\n", r":1: expected a mapping of keys, found list"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_told_with_its_line(tmp_path, text, message):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"t\.yaml{message}"):
        read(path)


@given(st.text() | st.text(st.sampled_from("abgates:{}[]-?&*!|>'\"#%@ \n\t0189.~<"), max_size=40))
@example("version: 1\ngates: {? {a: 1} : 2}")
@example("0: 1\n0: 2")
@example("a: 0b2\nb: 1e999\nc: 0o9")
def test_no_text_makes_a_traceback(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape" if text.isascii() else "replace")
    for load in (Thresholds.load, Benchmark.load):
        with pytest.raises(InputError, match=r"any\.yaml"):
            load(str(path))


def test_whole_numbers_as_keys_are_text(tmp_path):
    (tmp_path / "t.yaml").write_text("a: {0: zero, -1: b, 10: ten}\n")
    found = read(tmp_path / "t.yaml")
    assert found.data == {"a": {"0": "zero", "-1": "b", "10": "ten"}}
    assert found.where(("a", "10")).endswith("t.yaml:1")


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(InputError, match="unknown thresholds file 'aaa"):
        Thresholds.load("a" * 1000)
    with pytest.raises(InputError, match=r"unknown thresholds file 'defaults'; did you mean 'default'"):
        Thresholds.load("defaults")
    (tmp_path / "t.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        Thresholds.load(str(tmp_path / "t.yaml"))


def test_a_document_laid_over_its_base_keeps_the_lines_of_both(tmp_path):
    (tmp_path / "base.yaml").write_text("a: {x: 1, y: 2}\nb: [1]\nc: {source: letters, limit: 1}\nd: 4\n")
    (tmp_path / "top.yaml").write_text("\na: {y: 3}\nb: [2, 3]\nc: {source: digits}\nd: null\n")
    laid = read(tmp_path / "top.yaml").overlay(read(tmp_path / "base.yaml"))
    assert laid.data == {"a": {"x": 1, "y": 3}, "b": [2, 3], "c": {"source": "digits"}}
    assert laid.where(("a", "x")).endswith("base.yaml:1")
    assert laid.where(("a", "y")).endswith("top.yaml:2")
    assert laid.where(("b", 1)).endswith("top.yaml:3")
    assert laid.where(("c", "limit")).endswith("top.yaml:4")


def test_a_null_with_nothing_to_take_out_is_an_error_with_its_line(tmp_path):
    (tmp_path / "base.yaml").write_text("a: 1\n")
    (tmp_path / "top.yaml").write_text("version: 1\nb: null\n")
    with pytest.raises(InputError, match=r"top\.yaml:2: unknown key 'b'.*null takes out what is extended"):
        read(tmp_path / "top.yaml").overlay(read(tmp_path / "base.yaml"))


def test_paths_are_shown_as_users_know_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert display_path(tmp_path / "limits" / "t.yaml") == str(Path("limits") / "t.yaml")
    assert display_path(PACKAGE / "x.yaml") == str(Path("pytest_qreliab") / "x.yaml")
    assert display_path(tmp_path.parent / "t.yaml") == str(tmp_path.parent / "t.yaml")
