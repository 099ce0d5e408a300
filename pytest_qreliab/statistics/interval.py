"""What every interval here is."""

from __future__ import annotations

from typing import NamedTuple


class Interval(NamedTuple):
    """Bounds on a difference, quantized minus baseline, each one-sided: either is exceeded with probability alpha.

    Read together they are a two-sided interval of confidence 1 - 2 alpha.
    """

    low: float
    high: float
