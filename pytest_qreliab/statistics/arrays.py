"""Types of arrays, and the check of the input of statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
FeatureArray = npt.NDArray[np.floating]  # features of samples, (n, dim), in the precision that a model gave them


def check_finite(values: npt.ArrayLike, name: str, *min_shape: int) -> FloatArray:
    """Return values as a float64 array of finite numbers.

    Args:
        values: An array, or nested sequences of numbers.
        name: What an error message calls the values.
        *min_shape: The least length of each axis. Their number is the number of axes.

    Raises:
        ValueError: The number of axes is another, an axis is too short, or a value is NaN or infinite.

    Example:
        >>> check_finite([1, 2], "a sample", 2)
        array([1., 2.])
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(min_shape) or any(size < least for size, least in zip(array.shape, min_shape, strict=True)):
        raise ValueError(f"{name}: the shape must be at least {min_shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: NaN or infinity among the values")
    return array
