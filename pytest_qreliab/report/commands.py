"""What the command `qreliab` does with results files: lines to print, and the exit code."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.text import Text

from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.errors import InputError
from pytest_qreliab.report import export, files, markdown, results_file, run_comparison, snapshot, terminal
from pytest_qreliab.report.html import page
from pytest_qreliab.report.results_file import Results

Lines = tuple[list[Text], int]

FORMATS: dict[str, Callable[[Results], str | bytes]] = {
    ".html": page.render,
    ".md": markdown.render,
    ".csv": export.to_csv,
    ".parquet": export.to_parquet,
}


def merge(names: Sequence[str], output: str | None, *, color: bool, unicode: bool) -> Lines:
    """The table of all results, and below it what is missing; and 0 where all is there and passed, else 1.

    The results go to the file `output` as well. Raises InputError for files that do not belong together.
    """
    shards = {Path(name): results_file.read(Path(name)) for name in names}
    if len(shards) < len(names):
        raise InputError("a file is given twice")
    merged, count, missing = results_file.merge(shards)
    lines = _table(merged, color=color, unicode=unicode)
    lines += [Text(f"missing: shard {number} of {count}", style="red") for number in missing]
    lines += [
        Text(f"{path}: the run ended with exit status {found.exitstatus}", style="yellow")
        for path, found in shards.items()
        if found.exitstatus
    ]
    lines.append(_count(merged))
    if output is not None:
        _write(output, results_file.text(merged))
    return lines, merged.exitstatus


def report(name: str, outputs: Sequence[str], *, color: bool, unicode: bool) -> Lines:
    """The results in files of the formats that their names end in; without any, the table. 0: whether gates fail is for
    the run itself to say. Raises InputError for another ending, and for files that cannot be read or written."""
    found = results_file.read(Path(name))
    for output in outputs:
        if Path(output).suffix not in FORMATS:
            raise InputError(f"--output: {output} ends in none of {', '.join(FORMATS)}")
    if not outputs:
        return [*_table(found, color=color, unicode=unicode), _count(found)], 0
    for output in outputs:
        _write(output, FORMATS[Path(output).suffix](found))
    return [Text(f"written: {', '.join(outputs)}")], 0


def compare(before: str, after: str, thresholds: str) -> Lines:
    """What became of the first results in the second, and 1 where that is a regression, else 0. Raises InputError."""
    first, second = (results_file.read(Path(name)) for name in (before, after))
    found = run_comparison.compare(first, second, Thresholds.load(thresholds))
    lines = []
    for case in dict.fromkeys(difference.case for difference in found):
        lines.append(Text(case, style="bold"))
        lines += [
            Text(f"  {'regression' if of.regression else 'change'}: {of.text}", style="red" if of.regression else "")
            for of in found
            if of.case == case
        ]
    worse = sum(of.regression for of in found)
    count = len({entry["case"] for entry in (*first.cases, *second.cases)})
    told = (
        f"{count} case{'s' * (count != 1)}: {worse} regression{'s' * (worse != 1)}, {len(found) - worse} other changes"
    )
    return [*lines, Text(told, style="red" if worse else "green")], int(worse > 0)


def accept(name: str, folder: str, update: str) -> Lines:
    """Accept results that were measured elsewhere into a snapshot; 1 where a case was not, else 0. Raises
    InputError."""
    found = results_file.read(Path(name))
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"--snapshot: {path} is a file; give a folder, which need not exist yet")
    if undescribed := [entry["case"] for entry in found.cases if not entry["data"]]:
        raise InputError(f"{name}: {undescribed[0]} does not say what it was measured on; it cannot be accepted")
    into = snapshot.load(path, "all" if update == "all" else "new")
    try:
        renewed = into.renew(found.cases)
    except OSError as error:
        raise InputError(f"--snapshot: {error.filename} cannot be written: {error.strerror}") from None
    without = found.unmeasured()
    lines = [Text(line) for line in renewed.lines(str(path))]
    lines += [Text(f"no result: {case}: {why}", style="red") for case, why in without.items()]
    return lines, int(bool(renewed.refused or without))


def _table(found: Results, *, color: bool, unicode: bool) -> list[Text]:
    lines = []
    if found.cases:
        output = terminal.Output(shutil.get_terminal_size().columns, color=color, unicode=unicode)
        lines = [Text.from_ansi(line) for line in terminal.render(found.cases, output).splitlines()]
        lines += [Text(line) for line in terminal.notes(found.cases)[:-1]]  # what it took was taken elsewhere
    return lines + [Text(f"no result: {case}: {why}", style="red") for case, why in found.unmeasured().items()]


def _count(found: Results) -> Text:
    cases, failed, without = len(found.plan.cases), len(found.failed()), len(found.unmeasured())
    counts = f"{len(found.cases) - failed} passed, {failed} failed, {without} without result"
    style = "red" if failed or without or found.exitstatus else "green"
    return Text(f"{cases} case{'s' * (cases > 1)}: {counts}", style=style)


def _write(output: str, content: str | bytes) -> None:
    try:
        files.write(Path(output), content)
    except OSError as error:
        raise InputError(f"--output: {output} cannot be written: {error.strerror}") from None
