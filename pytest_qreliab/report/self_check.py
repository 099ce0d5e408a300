"""The A/A self-check as a test gets it, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from rich import box
from rich.table import Table
from rich.text import Text

from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.terminal import Output


class SelfCheckRecord(TypedDict):
    """A self-check as plain scalars, so that it can travel on a test report between processes."""

    case: str
    samples: int
    device: str
    replicates: int
    failed: int
    allowed: float
    passed: bool
    gates: list[tuple[str, str, float, float, float]]  # metric, limit, its value, false failures, detectable
    left_out: list[str]


def render(entries: Iterable[SelfCheckRecord], output: Output) -> str:
    """The tables of all self-checks, one per case."""
    for found in entries:
        output.print(
            Text(found["case"], style="bold"),
            Text(f"({found['samples']} samples, {found['replicates']} pairs that do not differ)", style="dim"),
        )
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for header in ("", "limit", "false\nfailures", "caught in\n4 of 5"):
            table.add_column(header, justify="right" if header else "left", vertical="bottom")
        for metric, limit, value, false_failures, detectable in found["gates"]:
            table.add_row(metric, f"{limit} {value:g}", f"{false_failures:.1%}", number(detectable))
        rate = found["failed"] / found["replicates"]
        table.add_row(
            Text("any of them"),
            Text(f"at most {found['allowed']:.1%}"),
            Text(f"{rate:.1%}", style="green" if found["passed"] else "bold red"),
            "",
        )
        output.print(table)
        if found["left_out"]:
            output.print(Text(f"not tried: {', '.join(found['left_out'])}", style="dim"))
        output.print()
    output.print(
        Text("caught in 4 of 5: the least true harm that the gate would fail with 80 % probability", style="dim")
    )
    return output.text()
