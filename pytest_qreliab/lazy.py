"""Modules that are imported at their first use, for tables of functions that are read where nothing is computed."""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """A module that is imported when the first of its names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
