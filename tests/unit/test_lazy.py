import sys

import pytest

from pytest_qreliab.lazy import LazyModule


def test_a_module_is_imported_when_the_first_of_its_names_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "a_lazy_module.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = LazyModule("a_lazy_module")
    assert "a_lazy_module" not in sys.modules
    try:
        assert module.answer == 42
        assert module.answer is sys.modules["a_lazy_module"].answer
        with pytest.raises(AttributeError, match="no attribute 'question'"):
            module.question  # noqa: B018
    finally:
        sys.modules.pop("a_lazy_module", None)


def test_a_module_that_is_not_there_is_missed_at_its_first_use():
    module = LazyModule("no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        module.anything  # noqa: B018
