"""What every array must be before statistics are made of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def finite(values: npt.ArrayLike, name: str, *fewest: int) -> FloatArray:
    """`values` as float64, with one axis for each of `fewest`, the least length of that axis.

    Raises ValueError, calling them `name`, for another number of axes, too few values, NaN or infinity.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(fewest) or any(size < least for size, least in zip(array.shape, fewest, strict=True)):
        raise ValueError(f"{name}: the shape must be at least {fewest}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: NaN or infinity among the values")
    return array
