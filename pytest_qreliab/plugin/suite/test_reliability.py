"""One test per aspect; the plugin parametrizes each over the cases whose thresholds gate that aspect."""

import pytest

from pytest_qreliab.plugin.checked_result import CheckedResult


@pytest.mark.qreliab(aspect="accuracy")
def test_accuracy(qreliab_result: CheckedResult) -> None:
    qreliab_result.check("accuracy")


@pytest.mark.qreliab(aspect="calibration")
def test_calibration(qreliab_result: CheckedResult) -> None:
    qreliab_result.check("calibration")


@pytest.mark.qreliab(aspect="robustness")
def test_robustness(qreliab_result: CheckedResult) -> None:
    qreliab_result.check("robustness")


@pytest.mark.qreliab(aspect="ood")
def test_ood(qreliab_result: CheckedResult) -> None:
    qreliab_result.check("ood")


@pytest.mark.qreliab(aspect="spectrum")
def test_spectrum(qreliab_result: CheckedResult) -> None:
    qreliab_result.check("spectrum")
