"""What `qreliab merge` says of the results of several shards."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from pytest_qreliab import results
from pytest_qreliab.errors import InputError
from pytest_qreliab.report import terminal


def report(names: Sequence[str], output: str | None, *, color: bool, unicode: bool) -> tuple[list[Text], int]:
    """The table of all results, and below it what is missing; and 0 where all is there and passed, else 1.

    The results go to the file `output` as well. Raises InputError for files that do not belong together.
    """
    files = {Path(name): results.read(Path(name)) for name in names}
    if len(files) < len(names):
        raise InputError("a file is given twice")
    merged, count, missing = results.merge(files)
    lines = []
    if merged.cases:
        table = terminal.render(
            merged.cases, terminal.Output(shutil.get_terminal_size().columns, color=color, unicode=unicode)
        )
        lines = [Text.from_ansi(line) for line in table.splitlines()]
    without = merged.unmeasured()
    lines += [Text(f"no result: {case}: {why}", style="red") for case, why in without.items()]
    lines += [Text(f"missing: shard {number} of {count}", style="red") for number in missing]
    lines += [
        Text(f"{path}: the run ended with exit status {found.exitstatus}", style="yellow")
        for path, found in files.items()
        if found.exitstatus
    ]
    cases, failed = len(merged.plan.cases), len(merged.failed())
    lines.append(
        Text(
            f"{cases} case{'s' * (cases > 1)}: {len(merged.cases) - failed} passed, {failed} failed, "
            f"{len(without)} without result",
            style="red" if merged.exitstatus else "green",
        )
    )
    if output is not None:
        try:
            results.write(Path(output), merged)
        except OSError as error:
            raise InputError(f"--output: {output} cannot be written: {error.strerror}") from None
    return lines, merged.exitstatus
