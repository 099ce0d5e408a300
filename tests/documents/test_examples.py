"""The examples in the docstrings of metrics and statistics: every public function has one, and it is right."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import pytest_qreliab.metrics
import pytest_qreliab.statistics

MODULES = [
    module.name
    for package in (pytest_qreliab.metrics, pytest_qreliab.statistics)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_every_example_is_right(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_has_an_example(name):
    module = importlib.import_module(name)
    functions = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == name and not key.startswith("_")
    }
    assert not [key for key, value in functions.items() if ">>> " not in (value.__doc__ or "")]
