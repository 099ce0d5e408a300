"""The comparison of two runs, as `qreliab compare` makes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.formats import Format
from pytest_qreliab.config.thresholds import LIMIT_TOLERANCE, Thresholds
from pytest_qreliab.errors import InputError, suggestion
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.names import MetricName
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
            differences += _other_origins(earlier[case], later[case])
            differences += _changed_verdicts(earlier[case], later[case])
            differences += _drifts(earlier[case], later[case], thresholds)
    return differences


def unjudged(before: Results, after: Results, thresholds: Thresholds) -> dict[str, dict[str, str]]:
    """Return why `max_drift` gates are not judged, by case and metric.

    Args:
        before: The earlier run.
        after: The later run.
        thresholds: The gates.

    Raises:
        InputError: A gate is on a metric that a run does not hold, and may not be skipped. The message has a line for
            each, with file and line of the gate.
    """
    earlier = {record["case"]: record for record in before.cases}
    skipped: dict[str, dict[str, str]] = {}
    refused: dict[str, None] = {}
    for record in after.cases:
        if record["case"] not in earlier:
            continue
        reasons = skipped.setdefault(record["case"], {})
        for gate in thresholds.gates(_case(record)):
            lack = _lack(gate.metric, record, "later") or _lack(gate.metric, earlier[record["case"]], "earlier")
            if not gate.is_drift or not lack:
                continue
            reasons[gate.metric] = lack
            if not gate.skippable:
                skip = "or write `where_missing: skip` beside its limit"
                refused[f"{gate.where}: {gate.metric} cannot be judged: {lack}; {skip}"] = None
    if refused:
        raise InputError("\n".join(refused))
    return skipped


def _lack(metric: str, record: CaseRecord, which: str) -> str:
    """Say why a run does not hold a metric, if it does not."""
    if metric in record["skipped"]:
        return f"not in the {which} run: {record['skipped'][metric]}"
    names = [metric_record["metric"] for metric_record in record["metrics"]]
    if registry.canonical(metric) in names:
        return ""
    parsed = MetricName.parse(metric)
    alike = [name for name in names if MetricName.parse(name).family == parsed.family] if parsed.part else []
    return f"the {which} run does not hold it" + (f"; {suggestion(metric, alike)}" if alike else "")


def _other_origins(before: CaseRecord, after: CaseRecord) -> Iterator[RunDifference]:
    """Yield what is different of the full-precision model, and the commits of data sets that are."""
    old, new = (
        {f"full precision: {what}": value for what, value in record["baseline"].items()}
        | {what: value for what, value in record["environment"].items() if what.startswith("data set ")}
        for record in (before, after)
    )
    for what in dict.fromkeys([*old, *new]):
        if old.get(what) != new.get(what):
            text = f"{what}: {old.get(what, 'none')} became {new.get(what, 'none')}"
            yield RunDifference(after["case"], text, regression=False)


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
        why = f"judged any more: {after['skipped'][metric]}" if metric in after["skipped"] else "gated any more"
        yield RunDifference(after["case"], f"{metric} is not {why}", regression=True)


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
        if not gate.is_drift or metric not in old or metric not in new:
            continue  # said by `unjudged`
        drift, most = new[metric] - old[metric], gate.value + LIMIT_TOLERANCE
        if not abs(drift) <= most:
            values = f"{number(old[metric])} became {number(old[metric] + drift)}"
            text = f"{gate.metric} {values}, beyond max_drift {gate.value:g}, {gate.where}"
            yield RunDifference(after["case"], text, regression=not registry.lookup(gate.metric).harm(drift) <= most)


def _case(record: CaseRecord) -> Case:
    """Return the case of a record, which its thresholds depend on."""
    build = Build(
        model=record["model"],
        quantizer=record["quantizer"],
        bits=Format.recorded(record["bits"]),
        scope=record["scope"],
        calibration=None,
    )
    return Case(build, record["benchmark"])
