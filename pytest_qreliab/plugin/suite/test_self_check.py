"""The A/A self-check, run in place of the other tests where --qreliab-aa asks for it."""

import pytest

from pytest_qreliab.plugin.checked_result import CheckedSelfCheck


@pytest.mark.qreliab
def test_self_check(qreliab_self_check: CheckedSelfCheck) -> None:
    qreliab_self_check.check()
