import unicodedata

import pytest

from pytest_qreliab.config.text_forms import as_on_disk, composed, printable

COMPOSED = "café"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def test_names_are_compared_composed():
    assert DECOMPOSED != COMPOSED
    assert composed(DECOMPOSED) == composed(COMPOSED) == COMPOSED
    assert composed("cafe") == "cafe"


def test_a_path_is_found_in_the_form_that_it_has_on_disk(tmp_path):
    (tmp_path / DECOMPOSED).mkdir()
    (tmp_path / DECOMPOSED / f"{COMPOSED}.txt").write_text("x")
    mixed = tmp_path / DECOMPOSED / f"{COMPOSED}.txt"
    assert as_on_disk(tmp_path / COMPOSED / f"{DECOMPOSED}.txt") == mixed
    assert as_on_disk(mixed) == mixed
    nowhere = tmp_path / COMPOSED / "nowhere"
    assert as_on_disk(nowhere) == tmp_path / DECOMPOSED / "nowhere"
    assert as_on_disk(tmp_path / "plain") == tmp_path / "plain"


def test_relative_paths_stay_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DECOMPOSED).mkdir()
    found = as_on_disk(tmp_path.relative_to(tmp_path) / COMPOSED)
    assert (str(found), found.is_dir()) == (DECOMPOSED, True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red] <b>", "plain [red] <b>"),
        ("é\n", "é\\n"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[1m\x00", "\\x1b[1m\\x00"),
        ("\u202eabc", "\\u202eabc"),
        ("\udcff", "\\udcff"),
        ("\u05e9\u05dc \u8868 \U0001f469\u200d\U0001f467", "\u05e9\u05dc \u8868 \U0001f469\u200d\U0001f467"),
    ],
)
def test_what_does_not_print_is_written_as_an_escape(text, shown):
    assert printable(text) == shown
