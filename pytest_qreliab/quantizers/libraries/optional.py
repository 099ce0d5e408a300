"""Optional packages: imported only when a quantizer needs them, and kept quiet."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_qreliab.errors import InputError


def require(quantizer: str, extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        quantizer: What needs them, for the message.
        extra: The extra of this package that installs them.
        *packages: Their names in Python.

    Raises:
        InputError: One is not installed. The message has the command that installs the extra.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"quantizer {quantizer!r} needs the package {package}: pip install 'pytest-qreliab[{extra}]'"
            )


def load(module: str) -> Any:
    """Import a module of an optional package.

    Raises:
        InputError: The package is broken.
    """
    with quiet():
        try:
            return importlib.import_module(module)
        except Exception as error:  # of any kind: a package made for another torch may ask it for anything
            package = module.partition(".")[0]
            raise InputError(
                f"the package {package} is installed but cannot be imported: {first_line(error)}"
            ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an exception's text, or its class."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's warnings and log lines off the terminal.

    What it does to the root logger is undone.
    """
    root = logging.getLogger()
    disabled, level, handlers = root.manager.disable, root.level, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)
        root.handlers[:] = handlers
