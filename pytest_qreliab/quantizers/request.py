"""The request that a quantizer is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine.grid import Scheme, granularity

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

    bits: Format  # of all layers but those of `formats`
    scope: str  # the towers to quantize: "vision", "text" or "both"
    parameters: Any  # an instance of the quantizer's own parameter class
    calibration: Calibration | None = None  # None if nothing asks for it
    advance: Callable[[int], None] = _ignore  # to be called with the number of steps just done, if steps are counted
    matched: Callable[[Clip], Clip] | None = None  # for a control: makes the quantized model whose error it matches
    checkpoints: Path | None = None  # the folder for unfinished training; None: nothing is saved
    # `cached(name, make)` returns the tensors that `make` returns. It calls `make` once for a name, full-precision
    # model and calibration data: what is observed for one quantizer is there for the next.
    cached: TensorCache = no_cache
    formats: Mapping[str, Format] = field(default_factory=dict)  # of layers that have their own, by name

    def require_calibration(self) -> Calibration:
        """Return the calibration data.

        Raises:
            ValueError: There are none.
        """
        if self.calibration is None:
            raise ValueError(f"{self.bits} with {self.parameters!r} needs calibration data")
        return self.calibration

    def format_of(self, layer: str) -> Format:
        """Return the format of a layer, given by name."""
        return self.formats.get(layer, self.bits)

    def weight_scheme(self, layer: str) -> Scheme:
        """Return the values that a layer's weight may be rounded to."""
        form, parameters = self.format_of(layer), self.parameters
        symmetric = parameters.symmetric
        return Scheme(
            number=form.weights,
            granularity=granularity(form, parameters.granularity),
            symmetric=form.group is None if symmetric is None else symmetric,
            restricted_range=parameters.restricted_range,
        )

    def input_scheme(self, layer: str) -> Scheme | None:
        """Return the values that a layer's input may be rounded to; None: it is not rounded."""
        number = self.format_of(layer).activations
        if number is None:
            return None
        return Scheme(
            number=number,
            granularity=number.block or "tensor",
            symmetric=self.parameters.symmetric_activations,
            restricted_range=self.parameters.restricted_range,
        )
