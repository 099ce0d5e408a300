"""The hooks that the plugin calls, for conftest.py files and other plugins to implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.planning.catalog import Catalog


@pytest.hookspec
def pytest_qreliab_register(catalog: Catalog) -> None:
    """Register quantizers and models.

    The hook is called once, when a run that has cases is planned. It reaches the conftest.py files and plugins that
    pytest has loaded by then: those of the paths on the command line, or of the working directory. If only a collected
    test asks for the plan, those beside the test as well.

    Args:
        catalog: Takes them with `catalog.add_quantizer(...)` and `catalog.add_model(...)`.
    """
