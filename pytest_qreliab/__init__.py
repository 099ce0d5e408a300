"""A release gate for the reliability of quantized CLIP models, as a pytest plugin."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pytest_qreliab._version import __version__

if TYPE_CHECKING:
    from pytest_qreliab.data.recording import Recording
    from pytest_qreliab.errors import InputError
    from pytest_qreliab.models.clip import Clip
    from pytest_qreliab.models.loading import load_model
    from pytest_qreliab.quantizers.engine.layers import prepare_layers
    from pytest_qreliab.quantizers.parameters import Parameters
    from pytest_qreliab.quantizers.recipe import Quantizer
    from pytest_qreliab.quantizers.request import Request
    from pytest_qreliab.statistics.influence import paired_mean

__all__ = [
    "Clip",
    "InputError",
    "Parameters",
    "Quantizer",
    "Recording",
    "Request",
    "__version__",
    "load_model",
    "paired_mean",
    "prepare_layers",
]

# pytest imports this package in every project: a heavy module is imported when its name is first used.
_HOMES = {
    "Clip": "models.clip",
    "InputError": "errors",
    "Parameters": "quantizers.parameters",
    "Quantizer": "quantizers.recipe",
    "Recording": "data.recording",
    "Request": "quantizers.request",
    "load_model": "models.loading",
    "paired_mean": "statistics.influence",
    "prepare_layers": "quantizers.engine.layers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
