"""What GitHub Actions shows of a run: a summary of the step, and the gates that failed at the lines of their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.records import CaseRecord, GateRecord


def commands(entries: Sequence[CaseRecord]) -> Iterator[str]:
    """A workflow command for each gate that does not let its case pass, at its file and line."""
    for entry in entries:
        for gate in entry["gates"]:
            if not gate["passed"]:
                path, _, line = gate["where"].rpartition(":")
                place = f"file={_property(path)},line={line}," if line.isdecimal() else ""
                title = _property(f"{gate['metric']} of {entry['quantization']}")
                message = _message(f"{entry['case']}: {_said(gate)}")
                yield f"::error {place}title={title}::{message}"


def _said(gate: GateRecord) -> str:
    if gate["problem"]:
        return gate["problem"]
    before = gate["baseline"] if gate["accepted"] is None else gate["accepted"]
    return (
        f"{number(before)} became {number(gate['quantized'])}, a harm of {number(gate['harm'])} "
        f"beyond {gate['limit']} {gate['value']:g}"
    )


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
