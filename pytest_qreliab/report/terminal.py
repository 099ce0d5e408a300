"""The summary table: one row per case below its baseline, one column per gated metric."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import partial

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers.recipe import RESCALE
from pytest_qreliab.report import tradeoff
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.records import (
    CaseRecord,
    ControlsRecord,
    drift_failures,
    drift_of,
    shown_verdict,
    worst_gates,
)

STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}
ASCII_SIGNS = {"pass": "+", "fail": "x", "inconclusive": "?"}


class Output:
    """What rich prints for a terminal of that width, as a string."""

    def __init__(self, width: int, *, color: bool, unicode: bool) -> None:
        self.width, self.unicode = width, unicode
        self._stream = io.StringIO()
        console = Console(
            file=self._stream,
            width=width,
            force_terminal=color,
            color_system="standard" if color else None,
            highlight=False,
            legacy_windows=False,
        )
        self.print = partial(console.print, soft_wrap=True)

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._stream.getvalue().splitlines())


def render(entries: Iterable[CaseRecord], output: Output) -> str:
    """The tables of all entries, one per model and benchmark."""
    signs = SIGNS if output.unicode else ASCII_SIGNS
    groups: dict[tuple[str, str], list[CaseRecord]] = {}
    for found in entries:
        groups.setdefault((found["model"], found["benchmark"]), []).append(found)
    for (model, benchmark), rows in groups.items():
        devices = ", ".join(sorted({row["device"] for row in rows}))
        output.print(
            Text(f"{model} on {benchmark}", style="bold"),
            Text(f"({rows[0]['samples']} samples, {devices})", style="dim"),
        )
        metrics = list(dict.fromkeys(metric for row in rows for metric in worst_gates(row)))
        runs = _fitting(metrics, rows, output.width)
        for run in runs:
            output.print(_table(run, rows, signs, last=run is runs[-1]), soft_wrap=False)
            output.print()
    for row in (row for rows in groups.values() for row in rows):
        if row["controls"] is not None:
            _print_controls(row, row["controls"], output)
    legend = Text("second line: change from full precision; ", style="dim")
    if any(drift_failures(row) for rows in groups.values() for row in rows):
        legend.append("third: from what was accepted; ")
    for outcome, sign in signs.items():
        legend.append(f"{sign} {outcome}  ", style=STYLES[outcome])
    output.print(legend)
    return output.text()


def notes(rows: Sequence[CaseRecord]) -> list[str]:
    """Below the table: what is not as it was accepted, the smallest that passes, and what all of it took."""
    warnings = [f"warning: {text}" for text in dict.fromkeys(text for row in rows for text in row["warnings"])]
    return [*warnings, *tradeoff.smallest_passing(rows), _work(rows)]


def _work(rows: Sequence[CaseRecord]) -> str:
    """On one machine."""
    encoded, known = (sum(row[what] for row in rows) for what in ("encoded", "known"))
    memory = f"peak memory {max(row['peak_memory'] for row in rows) / 2**30:.1f} GiB"
    if device := max(row["peak_device_memory"] for row in rows):
        memory += f", {device / 2**30:.1f} GiB on the device"
    return f"{encoded:,} images and prompts encoded, {known:,} known from before; {memory}"


def _table(metrics: Sequence[str], rows: Sequence[CaseRecord], signs: dict[str, str], *, last: bool) -> Table:
    table = _empty_table()
    columns: list[list[Text]] = [[] for _ in metrics]
    labels, coverages = [], []
    for label, below in _by_baseline(rows).items():
        baseline = {metric: gate["baseline"] for row in below for metric, gate in worst_gates(row).items()}
        labels += [label, *(row["quantization"] for row in below)]
        coverages += ["", *("recorded" if (share := row["coverage"]) is None else f"{share:.1%}" for row in below)]
        for metric, column in zip(metrics, columns, strict=True):
            column.append(Text(f"{number(baseline[metric])}  " if metric in baseline else ""))
            column += [_cell(metric, row, signs) for row in below]
    for row in zip(*columns, strict=True):
        for cell in row:  # heads are moved to the bottom, and so would be cells of fewer lines
            cell.append("\n" * (max(of.plain.count("\n") for of in row) - cell.plain.count("\n")))
    for metric, column in zip(metrics, columns, strict=True):
        table.add_column(_header(metric), justify="right", no_wrap=True, vertical="bottom")
        # rich strips a line before it aligns it, and with that the room for the sign.
        width = max(len(line) for cell in column for line in cell.plain.split("\n"))
        column[:] = [_right(cell, width) for cell in column]
    if last:
        table.add_column("coverage", justify="right", no_wrap=True)
        columns.append([Text(coverage) for coverage in coverages])
    for index, label in enumerate(labels):
        table.add_row(Text(label), *(column[index] for column in columns))
    return table


def _empty_table() -> Table:
    """With a first column for what the rows are called."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    return table


MATCHED = {"weights": "each weight errs by as much", "features": "the features err by as much"}


def _print_controls(row: CaseRecord, controls: ControlsRecord, output: Output) -> None:
    """Why the metrics of a case moved: the quantized model beside its matched controls."""
    output.print(Text(f"why {row['quantization']} moves {row['model']} on {row['benchmark']}", style="bold"))
    if controls["problem"]:
        output.print(Text(f"no matched controls: {controls['problem']}\n", style="yellow"))
        return
    ratios = ", ".join(f"{name} {ratio:.3g}" for name, ratio in controls["residuals"].items())
    output.print(Text(f"beside controls in which {MATCHED[controls['matched']]}; of the features", style="dim"))
    output.print(Text(f"error over signal is {ratios}", style="dim"))
    table = _empty_table()
    for name in controls["residuals"]:
        table.add_column(name, justify="right", no_wrap=True)
    for metric, changes in controls["changes"].items():
        conclusion = controls["conclusions"][metric]
        cells = [f"{number(change, '+')}\n{low:+.3f}..{high:+.3f}" for change, low, high in changes]
        style = "dim" if conclusion.startswith("cannot tell") else ""
        table.add_row(f"{registry.lookup(metric).header}\n{conclusion}", *cells, style=style)
    output.print(table, soft_wrap=False)
    output.print()


def _right(cell: Text, width: int) -> Text:
    """The cell's lines, each moved to the right within `width`, and kept there."""
    return Text("\n".join(line.rjust(width) for line in cell.plain.split("\n")), style=cell.style, justify="left")


def _by_baseline(rows: Sequence[CaseRecord]) -> dict[str, list[CaseRecord]]:
    """The rows below what they are compared with: the model as it is, or with its logit scale refitted as well."""
    groups: dict[str, list[CaseRecord]] = {}
    for row in rows:
        groups.setdefault("full precision" + RESCALE * row["rescaled"], []).append(row)
    return groups


def _header(metric: str) -> str:
    return registry.lookup(metric).header.replace(" ", "\n")


def _cell(metric: str, row: CaseRecord, signs: dict[str, str]) -> Text:
    """The value, below it the change with the verdict's sign, and below that the change from what was accepted where
    that fails."""
    gate, drifting = worst_gates(row).get(metric), drift_failures(row).get(metric)
    if gate is None:
        return Text("")
    found, change = shown_verdict(gate), gate["quantized"] - gate["baseline"]
    lines = [f"{number(gate['quantized'])}  ", f"{number(change, '+')} {signs[found]}"]
    if drifting is not None:
        found = shown_verdict(drifting)
        lines.append(f"{number(drift_of(drifting), '+')} {signs[found]}")
    return Text("\n".join(lines), style=STYLES[found])


def _fitting(metrics: Sequence[str], rows: Sequence[CaseRecord], width: int) -> list[list[str]]:
    """The metrics cut into runs whose columns fit side by side; a run holds at least one."""
    between = 2
    label = max(map(len, [*_by_baseline(rows), *(row["quantization"] for row in rows)])) + between
    coverage = len("coverage")
    runs: list[list[str]] = [[]]
    left = width - label
    for metric in metrics:
        lines = _header(metric).split("\n")
        for row in rows:
            lines += _cell(metric, row, SIGNS).plain.split("\n")
        needed = max(map(len, lines)) + between
        if runs[-1] and left < needed + (coverage if metric == metrics[-1] else 0):
            runs.append([])
            left = width - label
        runs[-1].append(metric)
        left -= needed
    return runs
