"""What `qreliab compare` says of two runs: what was accepted in the one and would not be in the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_qreliab.config.cases import Bits, Build, Case
from pytest_qreliab.config.thresholds import LIMIT_TOLERANCE, Thresholds
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.formatting import number
from pytest_qreliab.report.records import CaseRecord, worst_gates
from pytest_qreliab.report.results_file import Results


@dataclass(frozen=True)
class RunDifference:
    """One line of a comparison; `regression` says whether the later run is worse."""

    case: str
    text: str
    regression: bool


def compare(before: Results, after: Results, thresholds: Thresholds) -> list[RunDifference]:
    """Every gate that changed its verdict, every drift beyond `max_drift`, in either direction, and every case that is
    in one run alone."""
    earlier = {entry["case"]: entry for entry in before.cases}
    later = {entry["case"]: entry for entry in after.cases}
    found = []
    for case in dict.fromkeys([*earlier, *later]):
        if case not in later:
            why = after.errors.get(case, "not in the later run")
            found.append(RunDifference(case, f"no result: {why}", regression=True))
        elif case not in earlier:
            found.append(RunDifference(case, "new", regression=False))
        else:
            found += _verdicts(earlier[case], later[case])
            found += _drifts(earlier[case], later[case], thresholds)
    return found


def _verdicts(before: CaseRecord, after: CaseRecord) -> Iterator[RunDifference]:
    # What a snapshot held against them is not told again: the drift between the two is.
    old, new = worst_gates(before), worst_gates(after)
    for metric, gate in new.items():
        if metric in old and old[metric]["passed"] != gate["passed"]:
            what = "failed and passes now" if gate["passed"] else "passed and fails now"
            values = f"{number(old[metric]['quantized'])} became {number(gate['quantized'])}"
            yield RunDifference(after["case"], f"{metric} {what}: {values}, {gate['where']}", not gate["passed"])
    for metric in old.keys() - new.keys():
        yield RunDifference(after["case"], f"{metric} is not gated any more", regression=True)


def _drifts(before: CaseRecord, after: CaseRecord, thresholds: Thresholds) -> Iterator[RunDifference]:
    old, new = ({of["metric"]: of["quantized"] for of in entry["metrics"]} for entry in (before, after))
    differing = [name for name in before["data"] if before["data"][name] != after["data"].get(name)]
    if differing:
        text = f"measured on other data, so that no drift is told: {', '.join(differing)}"
        yield RunDifference(after["case"], text, regression=False)
        return
    bits = Bits.parse(after["bits"])
    assert isinstance(bits, Bits)  # entries never have a bare number
    build = Build(after["model"], after["quantizer"], bits, after["scope"], None)
    for gate in thresholds.gates(Case(build, after["benchmark"])):
        metric = registry.canonical(gate.metric)
        if not gate.is_drift or metric not in old:
            continue
        drift, most = new.get(metric, float("nan")) - old[metric], gate.value + LIMIT_TOLERANCE
        if not abs(drift) <= most:
            values = f"{number(old[metric])} became {number(old[metric] + drift)}"
            text = f"{gate.metric} {values}, beyond max_drift {gate.value:g}, {gate.where}"
            yield RunDifference(after["case"], text, regression=not registry.lookup(gate.metric).harm(drift) <= most)
