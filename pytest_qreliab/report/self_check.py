"""The record of an A/A self-check, and the table of all records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from rich import box
from rich.table import Table
from rich.text import Text

from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.terminal import Output


class SelfCheckRecord(TypedDict):
    """A self-check as plain scalars, which can travel between processes."""

    case: str
    samples: int
    device: str
    replicates: int
    failed: int
    allowed: float
    passed: bool
    gates: list[tuple[str, str, float, float, float]]  # metric, limit, its value, false failures, detectable
    left_out: list[str]


def render(records: Iterable[SelfCheckRecord], output: Output) -> str:
    """Return the tables of all self-checks, one for each case."""
    for record in records:
        output.print(
            Text(printable(record["case"]), style="bold"),
            Text(f"({record['samples']} samples, {record['replicates']} pairs that do not differ)", style="dim"),
        )
        output.print(_table(record))
        if record["left_out"]:
            output.print(Text(printable(f"not tried: {', '.join(record['left_out'])}"), style="dim"))
        output.print()
    output.print(
        Text("caught in 4 of 5: the least true harm that the gate would fail with 80 % probability", style="dim")
    )
    return output.text()


def _table(record: SelfCheckRecord) -> Table:
    """Return a row for each gate, and one for all of them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in ("", "limit", "false\nfailures", "caught in\n4 of 5"):
        table.add_column(header, justify="right" if header else "left", vertical="bottom")
    for metric, limit, value, false_failures, detectable in record["gates"]:
        cells = (printable(metric), f"{limit} {value:g}", f"{false_failures:.1%}", number(detectable))
        table.add_row(*map(Text, cells))
    rate = record["failed"] / record["replicates"]
    table.add_row(
        Text("any of them"),
        Text(f"at most {record['allowed']:.1%}"),
        Text(f"{rate:.1%}", style="green" if record["passed"] else "bold red"),
        "",
    )
    return table
