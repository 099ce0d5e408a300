"""Keys of the plugin's entries in pytest's stashes, and the names of its parametrized arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_qreliab.config.settings import Settings
from pytest_qreliab.errors import InputError

if TYPE_CHECKING:
    from pytest_qreliab.plugin.case_check import CaseCheck, CaseSelfCheck
    from pytest_qreliab.plugin.session import Session

CASE = "qreliab_case"
BUILD = "_qreliab_build"  # a quantized model
MODEL = "_qreliab_model"  # the name of a full-precision model

SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
SESSION: pytest.StashKey[Session] = pytest.StashKey()
# The shipped tests to run, by name; empty: all of them; None: the shipped suite is not run.
SHIPPED: pytest.StashKey[list[str] | None] = pytest.StashKey()
CHECK: pytest.StashKey[CaseCheck] = pytest.StashKey()
SELF_CHECK: pytest.StashKey[CaseSelfCheck] = pytest.StashKey()


def get_session(config: pytest.Config) -> Session:
    """Return the session of a pytest run, and make it if this is the first call.

    Raises:
        pytest.UsageError: The settings cannot be used.
    """
    if SESSION not in config.stash:
        from pytest_qreliab.plugin.session import Session

        try:
            config.stash[SESSION] = Session(config, config.stash[SETTINGS])
        except InputError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[SESSION]
