import pytest

from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.parameters import Percentile
from pytest_qreliab.quantizers.request import Request, no_cache


def test_what_is_required_is_returned_where_it_is_there(calibration):
    request = Request(bits=Format.integers(4, 6), scope="both", parameters=None, calibration=calibration)
    assert request.require_calibration() is calibration


def test_what_is_required_and_is_not_there_is_told():
    request = Request(bits=Format.integers(4), scope="both", parameters=Percentile(share=99))
    with pytest.raises(ValueError, match=r"^w4 with Percentile\(.*share=99.*\) needs calibration data$"):
        request.require_calibration()


def test_without_a_cache_everything_is_made_anew():
    made = []
    assert [no_cache("x", lambda: made.append(1) or {"n": len(made)}) for _ in range(2)] == [{"n": 1}, {"n": 2}]
