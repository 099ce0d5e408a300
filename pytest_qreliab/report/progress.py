"""A live progress bar in a terminal, and nothing where the output is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pytest_qreliab.embedding import Advance
from pytest_qreliab.evaluate import Progress as EvaluatorProgress
from pytest_qreliab.evaluate import silent


def for_config(config: pytest.Config) -> EvaluatorProgress:
    """Bars on pytest's own terminal, if that is one; else silence."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not reporter.isatty:
        return silent
    return _Bars(config, reporter).bar


class _Bars:
    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        self._reporter = reporter
        self._capture: Any = config.pluginmanager.get_plugin("capturemanager")
        # pytest captures the standard streams while tests run: keep a way to the real one.
        with self._uncaptured():
            stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        config.add_cleanup(stream.close)
        self._console = Console(file=stream, force_terminal=True)

    def _uncaptured(self) -> AbstractContextManager[None]:
        if self._capture is None:
            return nullcontext()
        uncaptured: AbstractContextManager[None] = self._capture.global_and_fixture_disabled()
        return uncaptured

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Advance]:
        self._leave_line()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(description, total=total)
            yield lambda done: progress.advance(task, done)

    def _leave_line(self) -> None:
        """End pytest's line of dots, which the bar would overwrite."""
        with self._uncaptured():
            self._reporter.ensure_newline()
            self._reporter.flush()
