"""Keys of the plugin's entries in pytest's stashes, and the names of its parametrized arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.plugin.options import is_on_command_line, only_lists, read_settings

if TYPE_CHECKING:
    from pytest_qreliab.plugin.case_check import CaseCheck, CaseSelfCheck
    from pytest_qreliab.plugin.session import Session

CASE = "qreliab_case"
BUILD = "_qreliab_build"  # a quantized model
MODEL = "_qreliab_model"  # the name of a full-precision model

SESSION: pytest.StashKey[Session] = pytest.StashKey()
REFUSED: pytest.StashKey[str] = pytest.StashKey()  # why there is no session
# Whether only the other shards have the tests that were selected.
ELSEWHERE: pytest.StashKey[bool] = pytest.StashKey()
# The shipped tests to run, by name; empty: all of them; None: the shipped suite is not run.
SHIPPED: pytest.StashKey[list[str] | None] = pytest.StashKey()
CHECK: pytest.StashKey[CaseCheck] = pytest.StashKey()
SELF_CHECK: pytest.StashKey[CaseSelfCheck] = pytest.StashKey()
PROPERTIES: pytest.StashKey[list[tuple[str, object]]] = pytest.StashKey()  # of a test, that the plugin gave it
PROBLEM: pytest.StashKey[str] = pytest.StashKey()  # why a test has no result
PROBLEMS: pytest.StashKey[dict[str, str]] = pytest.StashKey()  # the first test with each of these


def is_asked(config: pytest.Config) -> bool:
    """Return whether the invocation itself asks for reliability tests.

    Otherwise they run only if a collected test uses a fixture of the plugin.
    """
    if hasattr(config, "workerinput"):
        return bool(config.workerinput["qreliab_asked"])
    return not only_lists(config) and (config.stash[SHIPPED] is not None or is_on_command_line(config))


def get_session(config: pytest.Config) -> Session:
    """Return the session of a pytest run, and make it if this is the first call.

    Raises:
        pytest.UsageError: The settings cannot be used.
    """
    if REFUSED in config.stash:
        raise pytest.UsageError(config.stash[REFUSED])
    if SESSION not in config.stash:
        from pytest_qreliab.plugin.session import Session

        try:
            config.stash[SESSION] = Session(config, read_settings(config))
        except InputError as error:
            config.stash[REFUSED] = str(error)
            raise pytest.UsageError(str(error)) from None
    return config.stash[SESSION]
