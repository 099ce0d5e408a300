"""The downloads from a hub as people see them, before any test runs: on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_qreliab.report.formatting import file_size


@contextmanager
def show(what: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Show a download: a bar of its bytes in a terminal while it runs, and a line when it is done.

    Less than a mebibyte comes unseen.

    Args:
        what: The repository and the file.
        size: In bytes; None if it is not known before.
    """
    if size is not None and size < 1 << 20:
        yield lambda more: None
        return
    done = 0
    if not sys.stderr.isatty():

        def count(more: int) -> None:
            nonlocal done
            done += more

        yield count
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"downloading {what}", total=size)

            def advance(more: int) -> None:
                nonlocal done
                done += more
                progress.update(task, advance=more)

            yield advance
    print(f"qreliab: downloaded {file_size(size or done)} of {what}", file=sys.stderr)
