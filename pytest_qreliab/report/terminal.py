"""The summary table: one row per case below its baseline, one column per gated metric."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typing_extensions import TypedDict  # which pydantic can check before Python 3.12

from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers import RESCALE
from pytest_qreliab.report.failure import number

if TYPE_CHECKING:
    from pytest_qreliab.evaluate import Result
    from pytest_qreliab.explanation import Controls

STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}
ASCII_SIGNS = {"pass": "+", "fail": "x", "inconclusive": "?"}


class Entry(TypedDict):
    """A result as plain scalars, so that it can travel on a test report between processes."""

    case: str
    model: str
    benchmark: str
    quantization: str
    rescaled: bool
    samples: int
    device: str
    coverage: float | None
    values: dict[str, tuple[float, float]]
    outcomes: dict[str, tuple[str, bool]]
    controls: ControlsEntry | None
    encoded: int
    known: int
    peak_memory: int
    peak_device_memory: int


class ControlsEntry(TypedDict):
    """What the matched controls of a case show. The changes of each metric, (change, low, high), are those of the
    quantized model and of the controls, by name, in the order of `residuals`."""

    matched: str
    problem: str
    residuals: dict[str, float]
    changes: dict[str, list[tuple[float, float, float]]]
    conclusions: dict[str, str]


def entry(result: Result) -> Entry:
    """The part of a result that the table shows. Of several gates on a metric the worst outcome counts."""
    outcomes: dict[str, tuple[str, bool]] = {}
    values: dict[str, tuple[float, float]] = {}
    rank = {"pass": 0, "inconclusive": 1, "fail": 2}
    for verdict in result.verdicts:
        metric = verdict.gate.metric
        values[metric] = (verdict.baseline, verdict.quantized)
        mine = (verdict.outcome, verdict.passed)
        outcomes[metric] = max(outcomes.get(metric, mine), mine, key=lambda found: (not found[1], rank[found[0]]))
    build = result.case.build
    return Entry(
        case=result.case.id,
        model=build.model,
        benchmark=result.case.benchmark,
        quantization=result.case.quantization,
        rescaled=result.rescaled,
        samples=result.samples,
        device=result.device,
        coverage=None if result.coverage is None else result.coverage.weights,
        values=values,
        outcomes=outcomes,
        controls=None if result.controls is None else _controls_entry(result.controls),
        encoded=result.work.encoded,
        known=result.work.known,
        peak_memory=result.work.peak_memory,
        peak_device_memory=result.work.peak_device_memory,
    )


def _controls_entry(controls: Controls) -> ControlsEntry:
    changes = {
        found.metric: [(moved.change, *moved.interval) for moved in (found.quantized, *found.controls.values())]
        for found in controls.explanations
    }
    return ControlsEntry(
        matched=controls.matched,
        problem=controls.problem,
        residuals=dict(controls.residuals),
        changes=changes,
        conclusions={found.metric: found.conclusion for found in controls.explanations},
    )


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


def render(entries: Iterable[Entry], output: Output) -> str:
    """The tables of all entries, one per model and benchmark."""
    signs = SIGNS if output.unicode else ASCII_SIGNS
    groups: dict[tuple[str, str], list[Entry]] = {}
    for found in entries:
        groups.setdefault((found["model"], found["benchmark"]), []).append(found)
    for (model, benchmark), rows in groups.items():
        devices = ", ".join(sorted({row["device"] for row in rows}))
        output.print(
            Text(f"{model} on {benchmark}", style="bold"),
            Text(f"({rows[0]['samples']} samples, {devices})", style="dim"),
        )
        metrics = list(dict.fromkeys(metric for row in rows for metric in row["values"]))
        runs = _fitting(metrics, rows, output.width)
        for run in runs:
            output.print(_table(run, rows, signs, last=run is runs[-1]), soft_wrap=False)
            output.print()
    for row in (row for rows in groups.values() for row in rows):
        if row["controls"] is not None:
            _print_controls(row, row["controls"], output)
    legend = Text("second line: change from full precision; ", style="dim")
    for outcome, sign in signs.items():
        legend.append(f"{sign} {outcome}  ", style=STYLES[outcome])
    output.print(legend)
    return output.text()


def work(rows: Sequence[Entry]) -> str:
    """What all of it took, on one machine."""
    encoded, known = (sum(row[what] for row in rows) for what in ("encoded", "known"))
    memory = f"peak memory {max(row['peak_memory'] for row in rows) / 2**30:.1f} GiB"
    if device := max(row["peak_device_memory"] for row in rows):
        memory += f", {device / 2**30:.1f} GiB on the device"
    return f"{encoded:,} images and prompts encoded, {known:,} known from before; {memory}"


def _table(metrics: Sequence[str], rows: Sequence[Entry], signs: dict[str, str], *, last: bool) -> Table:
    table = _empty_table()
    columns: list[list[Text]] = [[] for _ in metrics]
    labels, coverages = [], []
    for label, below in _by_baseline(rows).items():
        baseline = {metric: values[0] for row in below for metric, values in row["values"].items()}
        labels += [label, *(row["quantization"] for row in below)]
        coverages += ["", *("recorded" if (share := row["coverage"]) is None else f"{share:.1%}" for row in below)]
        for metric, column in zip(metrics, columns, strict=True):
            column.append(Text(f"{number(baseline[metric])}  " if metric in baseline else ""))
            column += [_cell(metric, row, signs) for row in below]
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


def _print_controls(row: Entry, controls: ControlsEntry, output: Output) -> None:
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


def _by_baseline(rows: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The rows below what they are compared with: the model as it is, or with its logit scale refitted as well."""
    groups: dict[str, list[Entry]] = {}
    for row in rows:
        groups.setdefault("full precision" + RESCALE * row["rescaled"], []).append(row)
    return groups


def _header(metric: str) -> str:
    return registry.lookup(metric).header.replace(" ", "\n")


def _cell(metric: str, row: Entry, signs: dict[str, str]) -> Text:
    """The value, and below it the change with the verdict's sign."""
    if metric not in row["values"]:
        return Text("")
    baseline, quantized = row["values"][metric]
    outcome, passed = row["outcomes"][metric]
    style = STYLES[outcome] if passed or outcome == "fail" else STYLES["fail"]
    return Text(f"{number(quantized)}  \n{number(quantized - baseline, '+')} {signs[outcome]}", style=style)


def _fitting(metrics: Sequence[str], rows: Sequence[Entry], width: int) -> list[list[str]]:
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
