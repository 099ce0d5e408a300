import numpy as np
import pytest

from pytest_qreliab.statistics.arrays import check_finite


def test_numbers_become_float64():
    values = check_finite([[1, 2], [3, 4]], "scores", 2, 1)
    assert values.dtype == np.float64
    assert values.shape == (2, 2)
    assert check_finite([], "scores", 0).shape == (0,)


@pytest.mark.parametrize(
    ("values", "min_shape", "message"),
    [
        pytest.param([1.0], (2,), r"scores: the shape must be at least \(2,\), not \(1,\)", id="too few"),
        pytest.param([1.0, 2.0], (1, 1), r"scores: the shape must be at least \(1, 1\), not \(2,\)", id="one axis"),
        pytest.param([1.0, np.nan], (1,), "scores: NaN or infinity", id="NaN"),
        pytest.param([1.0, -np.inf], (1,), "scores: NaN or infinity", id="infinity"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(values, min_shape, message):
    with pytest.raises(ValueError, match=message):
        check_finite(values, "scores", *min_shape)
