"""pytest-qreliab: a release gate for the reliability of quantized CLIP models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_qreliab.errors import InputError
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.quantizers import Quantizer
    from pytest_qreliab.quantizers.parameters import Parameters
    from pytest_qreliab.quantizers.request import Request

__version__ = "0.1.0"
__all__ = ["Clip", "InputError", "Parameters", "Quantizer", "Request"]

# pytest imports this package in every project: what is heavy is imported when it is first asked for.
_HOME = {
    "Clip": "models.clip",
    "InputError": "errors",
    "Parameters": "quantizers.parameters",
    "Quantizer": "quantizers",
    "Request": "quantizers.request",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
