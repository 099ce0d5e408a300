"""A cache of one value lets the last one go before it makes another."""

import weakref

import pytest

from pytest_qreliab.evaluation.last_only import LastOnly


class Large:
    """What a weak reference can point to."""


def test_the_value_of_the_last_key_is_made_once():
    held, made = LastOnly(), []
    for key in ("a", "a", "b", "b", "a"):
        assert held.get(key, lambda key=key: made.append(key) or f"value of {key}") == f"value of {key}"
    assert made == ["a", "b", "a"]


def test_the_last_value_is_gone_when_another_is_made():
    held = LastOnly()
    last = weakref.ref(held.get("a", Large))
    assert last() is not None
    assert held.get("b", lambda: last() is None)


def test_nothing_is_held_after_an_error():
    held = LastOnly()
    held.get("a", lambda: "first")
    with pytest.raises(ZeroDivisionError):
        held.get("b", lambda: 1 / 0)
    assert held.get("a", lambda: "again") == "again"


def test_what_is_cleared_is_made_again():
    held = LastOnly()
    held.get("a", lambda: "first")
    held.clear()
    assert held.get("a", lambda: "again") == "again"
