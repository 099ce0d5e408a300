"""The A/A self-check as a test gets it, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import pytest
from rich import box
from rich.table import Table
from rich.text import Text

from pytest_qreliab.evaluation.verdicts.self_check import SelfCheck
from pytest_qreliab.report.failure_message import number
from pytest_qreliab.report.terminal import Output


class Entry(TypedDict):
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


@dataclass(frozen=True)
class CheckedSelfCheck(SelfCheck):
    """A self-check that knows the command that repeats the test it is given to."""

    repeat: str

    def check(self) -> None:
        """Fail the running test, with an explanation, if the gates fail too often where there is nothing to find."""
        if self.passed:
            return
        worst = sorted(self.gates, key=lambda of: -of.false_failures)
        lines = [
            f"self-check: {self.failed} of {self.replicates} pairs that do not differ fail a gate, where "
            f"{self.allowed:.1%} may",
            f"  case: {self.case.id}, {self.samples} samples",
            "",
            *(
                f"  {of.gate.metric}: {of.false_failures:.1%}; {of.gate.limit} {of.gate.value:g}, {of.gate.where}"
                for of in worst
                if of.false_failures
            ),
            "",
            "  Their limits are too tight for so few samples: give more samples, or widen the limits.",
            f"  repeat: {self.repeat}",
        ]
        pytest.fail("\n".join(lines), pytrace=False)

    def entry(self) -> Entry:
        """The part that the table shows."""
        return Entry(
            case=self.case.id,
            samples=self.samples,
            device=self.device,
            replicates=self.replicates,
            failed=self.failed,
            allowed=self.allowed,
            passed=self.passed,
            gates=[
                (of.gate.metric, of.gate.limit, of.gate.value, of.false_failures, of.detectable) for of in self.gates
            ],
            left_out=list(self.left_out),
        )


def render(entries: Iterable[Entry], output: Output) -> str:
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
