"""The summary in the terminal.

It has tables of cases and gated metrics, tables of matched controls, and notes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.metrics import registry
from pytest_qreliab.report import formatting, tradeoff
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.queries import (
    baseline_name,
    baseline_values,
    drift_failures,
    drift_of,
    gated_metrics,
    group_by_benchmark,
    shown_verdict,
    skipped_lines,
    training_lines,
    worst_gates,
)
from pytest_qreliab.report.records import CaseRecord, ControlsRecord

STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}
ASCII_SIGNS = {"pass": "+", "fail": "x", "inconclusive": "?"}
MATCHED = {"weights": "each weight errs by as much", "features": "the features err by as much"}
GAP = 2  # letters between columns
LONGEST, END = 36, 12  # letters of a name in a table, and those of its end that are kept


class Output:
    """A string with everything that rich prints for a terminal.

    Args:
        width: The letters that fit in a line.
        color: Whether the terminal shows colors.
        unicode: Whether it shows signs beyond ASCII.
    """

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
        """Return what was printed so far."""
        return "\n".join(line.rstrip() for line in self._stream.getvalue().splitlines())


def render(records: Iterable[CaseRecord], output: Output) -> str:
    """Return the tables of all records, with their controls and a legend.

    Each model and benchmark has a table, or several if it is wider than the terminal.
    """
    signs = SIGNS if output.unicode else ASCII_SIGNS
    groups = group_by_benchmark(records)
    for (model, benchmark), members in groups.items():
        devices = ", ".join(sorted({record["device"] for record in members}))
        output.print(
            Text(printable(f"{model} on {benchmark}"), style="bold"),
            Text(f"({members[0]['samples']} samples, {devices})", style="dim"),
        )
        parts = _split_to_fit(gated_metrics(members), members, output.width)
        for metrics in parts:
            output.print(_table(metrics, members, signs, last=metrics is parts[-1]), soft_wrap=False)
            output.print()
    grouped = [record for members in groups.values() for record in members]
    for record in grouped:
        if record["controls"] is not None:
            _print_controls(record, record["controls"], output)
    output.print(_legend(signs, with_drift=any(map(drift_failures, grouped))))
    return output.text()


def notes(records: Sequence[CaseRecord]) -> list[str]:
    """Return the lines below the tables.

    They are warnings, what was trained on, the smallest that passes, and what was not judged.
    """
    warnings = [f"warning: {text}" for text in dict.fromkeys(text for record in records for text in record["warnings"])]
    others = (*training_lines(records), *tradeoff.smallest_passing(records), *skipped_lines(records))
    return [printable(line) for line in (*warnings, *others)]


def cost(records: Sequence[CaseRecord]) -> str:
    """Return what the measurements took in a line."""
    encoded, known = sum(record["encoded"] for record in records), sum(record["known"] for record in records)
    memory = formatting.memory(
        max(record["peak_memory"] for record in records), max(record["peak_device_memory"] for record in records)
    )
    return f"{encoded:,} images and prompts encoded, {known:,} known from before; peak memory {memory}"


def _legend(signs: Mapping[str, str], *, with_drift: bool) -> Text:
    legend = Text("second line: change from full precision; ", style="dim")
    if with_drift:
        legend.append("third: from what was accepted; ")
    for outcome, sign in signs.items():
        legend.append(f"{sign} {outcome}  ", style=STYLES[outcome])
    return legend


def _table(metrics: Sequence[str], records: Sequence[CaseRecord], signs: Mapping[str, str], *, last: bool) -> Table:
    """Return the table of cases below their baselines by metric.

    The last table of a benchmark has the coverage as well.
    """
    table = _empty_table()
    columns: list[list[Text]] = [[] for _ in metrics]
    labels, coverages = [], []
    for label, members in _by_baseline(records).items():
        baseline = baseline_values(members)
        labels += [label, *map(_row_label, members)]
        coverages += ["", *(formatting.coverage(record["coverage"], record["product_coverage"]) for record in members)]
        for metric, column in zip(metrics, columns, strict=True):
            column.append(Text(f"{number(baseline[metric])}  " if metric in baseline else ""))
            column += [_cell(metric, record, signs) for record in members]
    for row in zip(*columns, strict=True):
        for cell in row:  # heads are moved to the bottom, and so would be cells of fewer lines
            cell.append("\n" * (max(other.plain.count("\n") for other in row) - cell.plain.count("\n")))
    for metric, column in zip(metrics, columns, strict=True):
        table.add_column(Text(_header(metric)), justify="right", no_wrap=True, vertical="bottom")
        # rich strips a line before it aligns it, and with that the room for the sign.
        width = max(len(line) for cell in column for line in cell.plain.split("\n"))
        column[:] = [_align_right(cell, width) for cell in column]
    if last:
        table.add_column("coverage", justify="right", no_wrap=True)
        columns.append([Text(coverage) for coverage in coverages])
    for index, label in enumerate(labels):
        table.add_row(Text(label), *(column[index] for column in columns))
    return table


def _empty_table() -> Table:
    """Return a table with a column for the names of rows."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    return table


def _print_controls(record: CaseRecord, controls: ControlsRecord, output: Output) -> None:
    """Print the changes of the quantized model beside its controls'."""
    what = f"why {record['quantization']} moves {record['model']} on {record['benchmark']}"
    output.print(Text(printable(what), style="bold"))
    if controls["problem"]:
        output.print(Text(printable(f"no matched controls: {controls['problem']}") + "\n", style="yellow"))
        return
    ratios = printable(", ".join(f"{name} {ratio:.3g}" for name, ratio in controls["residuals"].items()))
    output.print(Text(f"beside controls in which {MATCHED[controls['matched']]}; of the features", style="dim"))
    output.print(Text(f"error over signal is {ratios}", style="dim"))
    table = _empty_table()
    for name in controls["residuals"]:
        table.add_column(Text(printable(name)), justify="right", no_wrap=True)
    for metric, changes in controls["changes"].items():
        conclusion = controls["conclusions"][metric]
        cells = [Text(f"{number(change, '+')}\n{low:+.3f}..{high:+.3f}") for change, low, high in changes]
        style = "dim" if conclusion.startswith("cannot tell") else ""
        label = f"{_shorten(printable(registry.lookup(metric).header))}\n{printable(conclusion)}"
        table.add_row(Text(label), *cells, style=style)
    output.print(table, soft_wrap=False)
    output.print()


def _align_right(cell: Text, width: int) -> Text:
    """Return the cell with each line padded to the width."""
    return Text("\n".join(line.rjust(width) for line in cell.plain.split("\n")), style=cell.style, justify="left")


def _by_baseline(records: Sequence[CaseRecord]) -> dict[str, list[CaseRecord]]:
    """Group the records by the name of their baseline."""
    groups: dict[str, list[CaseRecord]] = {}
    for record in records:
        groups.setdefault(baseline_name(record["rescaled"]), []).append(record)
    return groups


def _header(metric: str) -> str:
    """Return the head of a column, a word a line."""
    return "\n".join(map(_shorten, printable(registry.lookup(metric).header).split(" ")))


def _row_label(record: CaseRecord) -> str:
    return _shorten(printable(record["quantization"]))


def _shorten(name: str) -> str:
    """Return a name of a row or column, without its middle if it would leave no room for values."""
    if cell_len(name) <= LONGEST:
        return name
    end = name[-END:]
    while cell_len(end) > END:
        end = end[1:]
    return f"{set_cell_size(name, LONGEST - END - 3)}...{end}"


def _cell(metric: str, record: CaseRecord, signs: Mapping[str, str]) -> Text:
    """Return the value with its changes, each with a sign."""
    gate_record, drift_record = worst_gates(record).get(metric), drift_failures(record).get(metric)
    if gate_record is None:
        return Text("")
    verdict, change = shown_verdict(gate_record), gate_record["quantized"] - gate_record["baseline"]
    lines = [f"{number(gate_record['quantized'])}  ", f"{number(change, '+')} {signs[verdict]}"]
    if drift_record is not None:
        verdict = shown_verdict(drift_record)
        lines.append(f"{number(drift_of(drift_record), '+')} {signs[verdict]}")
    return Text("\n".join(lines), style=STYLES[verdict])


def _split_to_fit(metrics: Sequence[str], records: Sequence[CaseRecord], width: int) -> list[list[str]]:
    """Split the metrics into parts whose columns fit side by side.

    A part holds at least one.
    """
    labels = [*_by_baseline(records), *map(_row_label, records)]
    room = width - max(map(cell_len, labels)) - GAP
    parts: list[list[str]] = [[]]
    left = room
    for metric in metrics:
        lines = _header(metric).split("\n")
        for record in records:
            lines += _cell(metric, record, SIGNS).plain.split("\n")
        needed = max(map(cell_len, lines)) + GAP
        if parts[-1] and left < needed + (len("100.0/100.0%") if metric == metrics[-1] else 0):
            parts.append([])
            left = room
        parts[-1].append(metric)
        left -= needed
    return parts
