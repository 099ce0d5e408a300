import logging
import warnings

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.libraries import optional


def test_a_missing_package_says_how_to_install_it():
    with pytest.raises(InputError, match=r"'x' needs the package no_such: pip install 'pytest-qreliab\[torchao\]'"):
        optional.require("x", "torchao", "no_such")


def test_a_package_that_is_there_is_not_imported_to_know_it(tmp_path, monkeypatch):
    (tmp_path / "a_broken_package.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert optional.require("x", "torchao", "a_broken_package") is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise RuntimeError('made for\\nanother torch')", "made for"), ("assert False", "AssertionError")],
)
def test_a_broken_package_is_told_in_the_first_line_of_its_error(tmp_path, monkeypatch, code, reason):
    (tmp_path / "a_broken_package.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as caught:
        optional.load("a_broken_package")
    assert str(caught.value) == f"the package a_broken_package is installed but cannot be imported: {reason}"


def test_warnings_and_log_lines_are_kept_quiet_and_the_root_logger_is_as_before(caplog, recwarn):
    root = logging.getLogger()
    before = (root.level, list(root.handlers), root.manager.disable)
    with optional.quiet():
        warnings.warn("deprecated", stacklevel=1)
        logging.getLogger("a_library").warning("loud")
        root.setLevel(logging.DEBUG)
        root.addHandler(logging.NullHandler())
    assert not caplog.records
    assert not recwarn.list
    assert (root.level, list(root.handlers), root.manager.disable) == before
    logging.getLogger("a_library").warning("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]
