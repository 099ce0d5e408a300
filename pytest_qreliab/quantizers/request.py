"""What a quantizer is asked for."""

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
    """Keeps nothing."""
    return make()


def _ignore(done: int) -> None:
    pass


@dataclass(frozen=True)
class Request:
    """Bits, scope and parameters, and what the quantizer may use to meet them.

    `parameters` is an instance of the quantizer's own class of parameters. `calibration` is None where nothing
    asks for it. `matched` makes the quantized model that a control takes its error from.
    `advance` is told of every step done,
    of a method that counts steps. `checkpoints` is a folder for unfinished training, None to keep none. `cached(name,
    make)` gives the tensors that `make` gives, which it calls once for the same full-precision model and calibration
    data: what is observed for one quantizer is there for the next.
    """

    bits: Bits
    scope: str
    parameters: Any
    calibration: Calibration | None = None
    advance: Callable[[int], None] = _ignore
    matched: Callable[[Clip], Clip] | None = None
    checkpoints: Path | None = None
    cached: TensorCache = no_cache

    def require_calibration(self) -> Calibration:
        """The calibration data, of a method that cannot do without."""
        if self.calibration is None:
            raise ValueError(f"{self.bits} with {self.parameters!r} needs calibration data")
        return self.calibration
