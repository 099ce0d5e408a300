"""The request that a quantizer is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration

Tensors = dict[str, torch.Tensor]
TensorCache = Callable[[str, Callable[[], Tensors]], Tensors]


def no_cache(name: str, make: Callable[[], Tensors]) -> Tensors:
    """Return what `make` returns, and keep nothing."""
    return make()


def _ignore(done: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Request:
    """The bits, scope and parameters that a quantizer is asked for."""

    bits: Bits
    scope: str  # the towers to quantize: "vision", "text" or "both"
    parameters: Any  # an instance of the quantizer's own parameter class
    calibration: Calibration | None = None  # None if nothing asks for it
    advance: Callable[[int], None] = _ignore  # to be called with the number of steps just done, if steps are counted
    matched: Callable[[Clip], Clip] | None = None  # for a control: makes the quantized model whose error it matches
    checkpoints: Path | None = None  # the folder for unfinished training; None: nothing is saved
    # `cached(name, make)` returns the tensors that `make` returns. It calls `make` once for a name, full-precision
    # model and calibration data: what is observed for one quantizer is there for the next.
    cached: TensorCache = no_cache

    def require_calibration(self) -> Calibration:
        """Return the calibration data.

        Raises:
            ValueError: There are none.
        """
        if self.calibration is None:
            raise ValueError(f"{self.bits} with {self.parameters!r} needs calibration data")
        return self.calibration

    def require_activation_bits(self) -> int:
        """Return the width of activations.

        Raises:
            ValueError: Only weights are to be quantized.
        """
        if self.bits.activations is None:
            raise ValueError(f"{self.bits} leaves activations in full precision")
        return self.bits.activations
