"""The quantizers that come with the package."""

from __future__ import annotations

from pytest_qreliab.quantizers import Quantizer
from pytest_qreliab.quantizers.parameters import Percentile, Rounding

_HERE = "pytest_qreliab.quantizers"

BUILTIN = (
    Quantizer("minmax", "round to nearest, ranges end at the largest magnitude", f"{_HERE}.ranges:minmax", Rounding),
    Quantizer("percentile", "round to nearest, ranges clip outliers", f"{_HERE}.ranges:percentile", Percentile),
    Quantizer("mse", "round to nearest, ranges of least squared error (OMSE)", f"{_HERE}.ranges:mse", Rounding),
)
