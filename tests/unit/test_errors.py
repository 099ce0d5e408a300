"""Errors of a user's input, and the words to mend it."""

import json

import pytest

from pytest_qreliab.errors import describe_exception, nearest, unknown, user_code_location


def test_unknown_names_the_nearest_whatever_its_case():
    error = unknown("model", "vit-b-32", ["ViT-B-32", "RN50"])
    assert str(error) == "unknown model 'vit-b-32'; did you mean 'ViT-B-32'?; valid: RN50, ViT-B-32"


@pytest.mark.parametrize(
    ("name", "near"), [("acuracy", "accuracy"), ("ECE", "ece"), ("auroc", "ood.auroc"), ("zzz", None)]
)
def test_the_nearest_name_is_found_whatever_its_case_and_none_where_none_is_alike(name, near):
    valid = ["accuracy", "ece", "ood.auroc", "nll"]
    assert nearest(name, valid) == near


def test_of_many_valid_names_the_first_twelve_are_shown_and_the_hint_comes_last():
    text = str(unknown("kind", "zzz", [f"k{i:02}" for i in range(15)], hint="see the docs"))
    shown = ", ".join(f"k{i:02}" for i in range(12))
    assert text == f"unknown kind 'zzz'; valid: {shown}, ... (15 in all); see the docs"
    assert str(unknown("kind", "a", [])) == "unknown kind 'a'; there is none to choose from"


def test_an_exception_is_described_in_one_line_with_the_place_in_the_users_code(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import json\n\n\ndef fail():\n    json.loads('{')\n")
    code = compile((tmp_path / "mine.py").read_text(), str(tmp_path / "mine.py"), "exec")
    context = {}
    exec(code, context)
    with pytest.raises(json.JSONDecodeError) as caught:
        context["fail"]()
    assert user_code_location(caught.value) == f" ({tmp_path / 'mine.py'}:5)"  # not that in the standard library
    monkeypatch.chdir(tmp_path)
    assert describe_exception(caught.value) == f"JSONDecodeError: {caught.value} (mine.py:5)"


def test_an_exception_that_was_never_raised_has_no_place():
    assert describe_exception(KeyError()) == "KeyError"
    assert describe_exception(ValueError("one\n   two")) == "ValueError: one two"
    assert describe_exception(ValueError("x" * 999)) == "ValueError: " + "x" * 300
