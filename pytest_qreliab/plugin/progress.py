"""A live progress bar on a terminal, and silence anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pytest_qreliab.embedding.forward import Advance
from pytest_qreliab.evaluation.progress import Progress as EvaluatorProgress
from pytest_qreliab.evaluation.progress import silent


def for_config(config: pytest.Config) -> EvaluatorProgress:
    """Return progress bars on pytest's own terminal, or silence if it writes to a file or pipe."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not reporter.isatty:
        return silent
    return _Bars(config, reporter).bar


class _Bars:
    """The progress bars of a run."""

    def __init__(self, config: pytest.Config, reporter: Any) -> None:
        self._writer = reporter._tw
        # pytest captures the standard streams while tests run: keep a way to the real one.
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            self._stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        config.add_cleanup(self._stream.close)
        self._console = Console(file=self._stream, force_terminal=True)

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Advance]:
        """Show a bar on the line below pytest's dots, until the work is done."""
        column = self._writer.width_of_current_line + 1
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._console.line()
        try:
            with Progress(*columns, console=self._console, transient=True) as progress:
                task = progress.add_task(description, total=total)
                yield lambda steps: progress.advance(task, steps)
        finally:
            self._stream.write(f"\x1b[1A\x1b[{column}G")  # up, and back to where pytest writes on
            self._stream.flush()
