"""The comparison of two runs, as `qreliab compare` makes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_qreliab.config.cases import Bits, Build, Case
from pytest_qreliab.config.thresholds import LIMIT_TOLERANCE, Thresholds
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.queries import worst_gates
from pytest_qreliab.report.records import CaseRecord
from pytest_qreliab.report.results_file import Results


@dataclass(frozen=True)
class RunDifference:
    """A line of the comparison."""

    case: str
    text: str
    regression: bool  # whether the later run is worse


def compare(before: Results, after: Results, thresholds: Thresholds) -> list[RunDifference]:
    """Compare two runs case by case.

    Args:
        before: The earlier run.
        after: The later run.
        thresholds: Say by `max_drift` how far values may move between the runs, in either direction.

    Returns:
        Every gate with another verdict, every drift beyond its limit, and every case that is in one run alone.
    """
    earlier = {record["case"]: record for record in before.cases}
    later = {record["case"]: record for record in after.cases}
    differences = []
    for case in dict.fromkeys([*earlier, *later]):
        if case not in later:
            why = after.errors.get(case, "not in the later run")
            differences.append(RunDifference(case, f"no result: {why}", regression=True))
        elif case not in earlier:
            differences.append(RunDifference(case, "new", regression=False))
        else:
            differences += _changed_verdicts(earlier[case], later[case])
            differences += _drifts(earlier[case], later[case], thresholds)
    return differences


def _changed_verdicts(before: CaseRecord, after: CaseRecord) -> Iterator[RunDifference]:
    """Yield the gates whose verdict changed.

    Gates on the drift from a snapshot count only if a metric has no other.
    """
    old, new = worst_gates(before), worst_gates(after)
    for metric, gate_record in new.items():
        if metric in old and old[metric]["passed"] != gate_record["passed"]:
            what = "failed and passes now" if gate_record["passed"] else "passed and fails now"
            values = f"{number(old[metric]['quantized'])} became {number(gate_record['quantized'])}"
            text = f"{metric} {what}: {values}, {gate_record['where']}"
            yield RunDifference(after["case"], text, regression=not gate_record["passed"])
    for metric in old.keys() - new.keys():
        yield RunDifference(after["case"], f"{metric} is not gated any more", regression=True)


def _drifts(before: CaseRecord, after: CaseRecord, thresholds: Thresholds) -> Iterator[RunDifference]:
    """Yield the values that moved further than `max_drift` allows."""
    differing = [name for name in before["data"] if before["data"][name] != after["data"].get(name)]
    if differing:
        text = f"measured on other data, so that no drift is told: {', '.join(differing)}"
        yield RunDifference(after["case"], text, regression=False)
        return
    old, new = (
        {metric_record["metric"]: metric_record["quantized"] for metric_record in record["metrics"]}
        for record in (before, after)
    )
    for gate in thresholds.gates(_case(after)):
        metric = registry.canonical(gate.metric)
        if not gate.is_drift or metric not in old:
            continue
        drift, most = new.get(metric, math.nan) - old[metric], gate.value + LIMIT_TOLERANCE
        if not abs(drift) <= most:
            values = f"{number(old[metric])} became {number(old[metric] + drift)}"
            text = f"{gate.metric} {values}, beyond max_drift {gate.value:g}, {gate.where}"
            yield RunDifference(after["case"], text, regression=not registry.lookup(gate.metric).harm(drift) <= most)


def _case(record: CaseRecord) -> Case:
    """Return the case of a record, which its thresholds depend on."""
    bits = Bits.parse(record["bits"])
    assert isinstance(bits, Bits)  # a record never has a bare number
    build = Build(
        model=record["model"], quantizer=record["quantizer"], bits=bits, scope=record["scope"], calibration=None
    )
    return Case(build, record["benchmark"])
