"""The hooks that the plugin calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.planning.catalog import Catalog


@pytest.hookspec
def pytest_qreliab_register(catalog: Catalog) -> None:
    """Register quantizers and models: `catalog.add_quantizer(...)`, `catalog.add_model(...)`.

    Called once, when a run that has cases is planned, for the conftest.py files and plugins that pytest has loaded
    by then: those of the paths on the command line, or of the working directory.
    """
