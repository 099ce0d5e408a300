"""Optional packages: imported only when a quantizer needs them, and without their chatter."""

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
    """Raise InputError, with the command to install the extra, unless all its packages are there. Imports nothing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"quantizer {quantizer!r} needs the package {package}: pip install 'pytest-qreliab[{extra}]'"
            )


def load(module: str) -> Any:
    """Import a module of an optional package. Raises InputError when the package is broken."""
    with quiet():
        try:
            return importlib.import_module(module)
        except Exception as error:  # of any kind: a package made for another torch may ask it for anything
            package = module.partition(".")[0]
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(f"the package {package} is installed but cannot be imported: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's warnings and log lines off the terminal, and its hands off the root logger."""
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
