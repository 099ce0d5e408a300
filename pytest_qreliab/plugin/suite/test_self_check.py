"""The A/A self-check, which replaces the other shipped tests with --qreliab-aa."""

import pytest

from pytest_qreliab.plugin.case_check import CaseSelfCheck


@pytest.mark.qreliab
def test_self_check(qreliab_self_check: CaseSelfCheck) -> None:
    """Check that the gates do not fail too often without a difference."""
    qreliab_self_check.check()
