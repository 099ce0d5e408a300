"""Annotations of GitHub Actions at the lines of failed limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.records import CaseRecord, GateRecord


def commands(records: Sequence[CaseRecord]) -> Iterator[str]:
    """Yield an annotation for each failed gate."""
    for record in records:
        for gate_record in record["gates"]:
            if not gate_record["passed"]:
                path, _, line = gate_record["where"].rpartition(":")
                place = f"file={_property(path)},line={line}," if line.isdecimal() else ""
                title = _property(f"{gate_record['metric']} of {record['quantization']}")
                message = _message(f"{record['case']}: {_explain(gate_record)}")
                yield f"::error {place}title={title}::{message}"


def _explain(gate_record: GateRecord) -> str:
    """Say in a line why the gate failed."""
    if gate_record["problem"]:
        return gate_record["problem"]
    before = gate_record["baseline"] if gate_record["accepted"] is None else gate_record["accepted"]
    return (
        f"{number(before)} became {number(gate_record['quantized'])}, a harm of {number(gate_record['harm'])} "
        f"beyond {gate_record['limit']} {gate_record['value']:g}"
    )


def _message(text: str) -> str:
    """Escape the message of a workflow command."""
    return "%0A".join(printable(line).replace("%", "%25") for line in text.split("\n"))


def _property(text: str) -> str:
    """Escape a property of a workflow command."""
    return _message(text).replace(":", "%3A").replace(",", "%2C")
