"""The commands of `qreliab` on results files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.text import Text

from pytest_qreliab.config.thresholds import Thresholds
from pytest_qreliab.errors import InputError
from pytest_qreliab.report import export, files, markdown, results_file, run_comparison, snapshot, terminal
from pytest_qreliab.report.command_output import CommandOutput
from pytest_qreliab.report.html import page
from pytest_qreliab.report.queries import count_skipped, describe_skipped
from pytest_qreliab.report.results_file import Results

FORMATS: dict[str, Callable[[Results], str | bytes]] = {
    ".html": page.render,
    ".md": markdown.render,
    ".csv": export.to_csv,
    ".parquet": export.to_parquet,
}


def merge(names: Sequence[str], output: str | None, *, color: bool, unicode: bool) -> CommandOutput:
    """Merge the results of shards.

    Args:
        names: Paths of results files, one for each shard.
        output: A path that the merged results are written to, or None.
        color: Whether the terminal shows colors.
        unicode: Whether it shows signs beyond ASCII.

    Returns:
        The table of all results, and what is missing. The exit code is 0 if all is there and passed, else 1.

    Raises:
        InputError: A file cannot be read or written, or the files do not belong together.
    """
    shards = {Path(name): results_file.read(Path(name)) for name in names}
    if len(shards) < len(names):
        raise InputError("a file is given twice")
    merged = results_file.merge(shards)
    lines = _table(merged.results, color=color, unicode=unicode)
    lines += [Text(f"missing: shard {number} of {merged.shards}", style="red") for number in merged.missing]
    lines += [
        Text(f"{path}: the run ended with exit status {results.exitstatus}", style="yellow")
        for path, results in shards.items()
        if results.exitstatus
    ]
    lines.append(_count(merged.results))
    if output is not None:
        _write(output, results_file.to_json(merged.results))
    return CommandOutput(lines, merged.results.exitstatus)


def report(name: str, outputs: Sequence[str], *, color: bool, unicode: bool) -> CommandOutput:
    """Show results, or write them in other formats.

    Args:
        name: The path of a results file.
        outputs: Paths to write to, in the formats that they end in. Without any the table is shown.
        color: Whether the terminal shows colors.
        unicode: Whether it shows signs beyond ASCII.

    Returns:
        The lines to print. The exit code is 0, because the run itself says whether gates fail.

    Raises:
        InputError: A path ends in no known format, or a file cannot be read or written.
    """
    results = results_file.read(Path(name))
    for output in outputs:
        if Path(output).suffix not in FORMATS:
            raise InputError(f"--output: {output} ends in none of {', '.join(FORMATS)}")
    if not outputs:
        return CommandOutput([*_table(results, color=color, unicode=unicode), _count(results)])
    for output in outputs:
        _write(output, FORMATS[Path(output).suffix](results))
    return CommandOutput([Text(f"written: {', '.join(outputs)}")])


def compare(before: str, after: str, thresholds: str) -> CommandOutput:
    """Compare two runs.

    Args:
        before: The path of the earlier results.
        after: The path of the later results.
        thresholds: A shipped name or the path of a thresholds file.

    Returns:
        The differences of each case, and their number. The exit code is 1 if the later run is worse, else 0.

    Raises:
        InputError: A file cannot be read, or a gate is on a metric that the results do not hold.
    """
    first, second = (results_file.read(Path(name)) for name in (before, after))
    limits = Thresholds.load(thresholds)
    skipped = describe_skipped(run_comparison.unjudged(first, second, limits))
    differences = run_comparison.compare(first, second, limits)
    lines = []
    for case in dict.fromkeys(difference.case for difference in differences):
        lines.append(Text(case, style="bold"))
        lines += [
            Text(
                f"  {'regression' if difference.regression else 'change'}: {difference.text}",
                style="red" if difference.regression else "",
            )
            for difference in differences
            if difference.case == case
        ]
    worse = sum(difference.regression for difference in differences)
    count = len({record["case"] for record in (*first.cases, *second.cases)})
    others = len(differences) - worse
    total = f"{count} case{'s' * (count != 1)}: {worse} regression{'s' * (worse != 1)}, {others} other changes"
    return CommandOutput([*lines, *map(Text, skipped), Text(total, style="red" if worse else "green")], int(worse > 0))


def accept(name: str, folder: str, update: str) -> CommandOutput:
    """Accept results that were measured elsewhere into a snapshot.

    Args:
        name: The path of a results file.
        folder: The folder of the snapshot.
        update: "all" to accept every result, else those that the snapshot does not hold.

    Returns:
        What was accepted. The exit code is 1 if a case was refused or has no result, else 0.

    Raises:
        InputError: A file cannot be read or written, or a result does not say what it was measured on.
    """
    results = results_file.read(Path(name))
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"--snapshot: {path} is a file; give a folder, which need not exist yet")
    if undescribed := [record["case"] for record in results.cases if not record["data"]]:
        raise InputError(f"{name}: {undescribed[0]} does not say what it was measured on; it cannot be accepted")
    accepted = snapshot.load(path, "all" if update == "all" else "new")
    try:
        renewed = accepted.renew(results.cases)
    except OSError as error:
        raise InputError(f"--snapshot: {error.filename} cannot be written: {error.strerror}") from None
    lines = [*map(Text, renewed.lines(str(path))), *_unmeasured(results)]
    return CommandOutput(lines, int(bool(renewed.refused or results.unmeasured())))


def _table(results: Results, *, color: bool, unicode: bool) -> list[Text]:
    """Return tables, notes and the cases without result."""
    lines = []
    if results.cases:
        output = terminal.Output(shutil.get_terminal_size().columns, color=color, unicode=unicode)
        lines = [Text.from_ansi(line) for line in terminal.render(results.cases, output).splitlines()]
        lines += map(Text, terminal.notes(results.cases))
    return [*lines, *_unmeasured(results)]


def _unmeasured(results: Results) -> list[Text]:
    return [Text(f"no result: {case}: {why}", style="red") for case, why in results.unmeasured().items()]


def _count(results: Results) -> Text:
    """Return the line that counts the cases."""
    cases, failed, unmeasured = len(results.plan.cases), len(results.failed()), len(results.unmeasured())
    counts = f"{len(results.cases) - failed} passed, {failed} failed, {unmeasured} without result"
    skipped = count_skipped(results.cases)
    counts += f", {skipped}" if skipped else ""
    style = "red" if failed or unmeasured or results.exitstatus else "green"
    return Text(f"{cases} case{'s' * (cases > 1)}: {counts}", style=style)


def _write(output: str, content: str | bytes) -> None:
    try:
        files.write(Path(output), content)
    except OSError as error:
        raise InputError(f"--output: {output} cannot be written: {error.strerror}") from None
