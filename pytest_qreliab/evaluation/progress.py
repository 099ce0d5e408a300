"""Progress of long work, which whoever runs the evaluator may show."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from pytest_qreliab.embedding.forward import Advance

# From a description and the number of steps to a context, in which steps that are done are counted.
Progress = Callable[[str, int], AbstractContextManager[Advance]]


def silent(description: str, total: int) -> AbstractContextManager[Advance]:
    """Return a context that shows nothing."""
    return nullcontext(lambda done: None)


def short_name(model: str) -> str:
    """Return the last part of a model's name, which may be a path."""
    return model.rstrip("/").rpartition("/")[2]
