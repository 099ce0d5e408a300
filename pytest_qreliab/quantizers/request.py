"""What a quantizer is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_qreliab.cases import Bits
from pytest_qreliab.quantizers.calibration import Calibration

if TYPE_CHECKING:
    from pytest_qreliab.quantizers import Recipe


def _ignore(done: int) -> None:
    pass


@dataclass(frozen=True)
class Request:
    """Bits, scope and parameters, and what the quantizer may use to meet them.

    `parameters` is an instance of the quantizer's own class of parameters. `calibration` is None where nothing
    asks for it. `matched` is the recipe that a control takes its error from. `advance` is told of every step done,
    of a method that counts steps. `checkpoints` is a folder for unfinished training, None to keep none. `seen` holds
    what was observed of the same full-precision model on the same calibration data, for the next quantizer.
    """

    bits: Bits
    scope: str
    parameters: Any
    calibration: Calibration | None = None
    advance: Callable[[int], None] = _ignore
    matched: Recipe | None = None
    checkpoints: Path | None = None
    seen: dict[object, Any] = field(default_factory=dict)

    def needed(self) -> Calibration:
        """The calibration data, of a method that cannot do without."""
        if self.calibration is None:
            raise ValueError(f"{self.bits} with {self.parameters!r} needs calibration data")
        return self.calibration
