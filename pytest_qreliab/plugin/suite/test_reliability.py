"""The shipped tests, one for each aspect.

The plugin parametrizes each over the cases whose thresholds gate its aspect.
"""

import pytest

from pytest_qreliab.plugin.case_check import CaseCheck


@pytest.mark.qreliab(aspect="accuracy")
def test_accuracy(qreliab_result: CaseCheck) -> None:
    """Check the gates on accuracy."""
    qreliab_result.check("accuracy")


@pytest.mark.qreliab(aspect="calibration")
def test_calibration(qreliab_result: CaseCheck) -> None:
    """Check the gates on calibration."""
    qreliab_result.check("calibration")


@pytest.mark.qreliab(aspect="robustness")
def test_robustness(qreliab_result: CaseCheck) -> None:
    """Check the gates on robustness."""
    qreliab_result.check("robustness")


@pytest.mark.qreliab(aspect="ood")
def test_ood(qreliab_result: CaseCheck) -> None:
    """Check the gates on out-of-distribution detection."""
    qreliab_result.check("ood")


@pytest.mark.qreliab(aspect="spectrum")
def test_spectrum(qreliab_result: CaseCheck) -> None:
    """Check the gates on feature spectra."""
    qreliab_result.check("spectrum")
