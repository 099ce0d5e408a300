"""Quantizers: their registry, which imports no torch, and their common calling form."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from pytest_qreliab.cases import Bits
from pytest_qreliab.errors import unknown

if TYPE_CHECKING:
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.quantizers.calibration import Calibration


class Apply(Protocol):
    """Quantizes a copy of a full-precision model; `calibration` is None where the bits need none."""

    def __call__(self, clip: Clip, bits: Bits, scope: str, calibration: Calibration | None) -> Clip: ...


@dataclass(frozen=True)
class Quantizer:
    """What is known of a quantizer before torch is imported.

    `default_activations` is the activation width that a bare bit width stands for, None for weights only.
    `coverage` is the share of the towers' matmul and convolution weights that it promises to quantize.
    """

    name: str
    help: str
    module: str
    default_activations: int | None
    coverage: float = 1.0

    def bits(self, parsed: Bits | int) -> Bits:
        """Full bits from what the user wrote: a bare 4 becomes the quantizer's own default."""
        return Bits(parsed, self.default_activations) if isinstance(parsed, int) else parsed

    def needs_calibration(self, bits: Bits) -> bool:
        return bits.activations is not None

    def apply(self) -> Apply:
        return cast(Apply, importlib.import_module(self.module).quantize)


_QUANTIZERS = {
    quantizer.name: quantizer
    for quantizer in (
        Quantizer(
            "minmax",
            "round to nearest, symmetric, ranges from the largest magnitude",
            "pytest_qreliab.quantizers.minmax",
            default_activations=8,
        ),
    )
}


def names() -> list[str]:
    return list(_QUANTIZERS)


def get(name: str) -> Quantizer:
    """The quantizer of that name. Raises InputError, with the nearest valid name."""
    if name not in _QUANTIZERS:
        raise unknown("quantizer", name, _QUANTIZERS)
    return _QUANTIZERS[name]
