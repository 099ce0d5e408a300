"""Answers to what reports ask of records: verdicts, worst gates, drift, groups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from pytest_qreliab.data.wording import counted
from pytest_qreliab.quantizers.recipe import RESCALE
from pytest_qreliab.report.records import CaseRecord, GateRecord

MOST_NAMED = 3  # cases in a line
SEVERITY = {"pass": 0, "inconclusive": 1, "fail": 2}


def passed(record: CaseRecord) -> bool:
    """Return whether every gate lets the case pass.

    A case of which nothing was judged does not pass.
    """
    return bool(record["gates"]) and all(gate_record["passed"] for gate_record in record["gates"])


def skipped_lines(records: Iterable[CaseRecord]) -> list[str]:
    """Return lines that say which gates were not judged, and why."""
    return describe_skipped({record["case"]: record["skipped"] for record in records})


def describe_skipped(skipped: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line for each reason why gates were not judged.

    Args:
        skipped: The reasons of each case, by metric.
    """
    cases: dict[tuple[str, str], list[str]] = {}  # by metric and reason
    for case, reasons in skipped.items():
        for metric, reason in reasons.items():
            cases.setdefault((metric, reason), []).append(case)
    metrics: dict[tuple[str, tuple[str, ...]], list[str]] = {}  # by reason and cases
    for (metric, reason), members in cases.items():
        metrics.setdefault((reason, tuple(members)), []).append(metric)
    return [
        f"not judged: {', '.join(names)}{_of_cases(members, len(skipped))}: {reason}"
        for (reason, members), names in metrics.items()
    ]


def training_lines(records: Iterable[CaseRecord]) -> list[str]:
    """Return lines that say what quantizers were trained on."""
    return describe_training((record["quantizer"], record["trained_on"]) for record in records)


def describe_training(trained_on: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each kind of training data.

    Args:
        trained_on: Quantizers, and what each is trained on in words, which are empty if it does not train.
    """
    quantizers: dict[str, dict[str, None]] = {}
    for quantizer, words in trained_on:
        quantizers.setdefault(words, {})[quantizer] = None
    return [f"{', '.join(names)}: trained on {words}" for words, names in quantizers.items() if words]


def count_skipped(records: Iterable[CaseRecord]) -> str:
    """Say how many gated metrics were not judged, if any."""
    count = sum(len(record["skipped"]) for record in records)
    return f"{counted(count, 'gated metric')} not judged" if count else ""


def _of_cases(cases: Sequence[str], total: int) -> str:
    """Say which cases are meant; nothing if they are all."""
    if len(cases) == total:
        return ""
    more = f" and {len(cases) - MOST_NAMED} more" if len(cases) > MOST_NAMED else ""
    return f" of {', '.join(cases[:MOST_NAMED])}{more}"


def worst_gates(record: CaseRecord) -> dict[str, GateRecord]:
    """Return the worst gate of each gated metric.

    Gates on the change from full precision come first. A gate on the drift counts only if its metric has no other.
    """
    paired = _worst(gate_record for gate_record in record["gates"] if not is_drift(gate_record))
    return {**_worst(record["gates"]), **paired}


def drift_failures(record: CaseRecord) -> dict[str, GateRecord]:
    """Return the worst failed drift gate of each metric."""
    return _worst(gate_record for gate_record in record["gates"] if is_drift(gate_record) and not gate_record["passed"])


def is_drift(gate_record: GateRecord) -> bool:
    """Return whether the gate limits the change from an accepted value."""
    return gate_record["limit"] == "max_drift"


def drift_of(gate_record: GateRecord) -> float:
    """Return the change from the accepted value, NaN without one."""
    return math.nan if gate_record["accepted"] is None else gate_record["quantized"] - gate_record["accepted"]


def shown_verdict(gate_record: GateRecord) -> str:
    """Return the outcome, or `fail` if the thresholds refuse an inconclusive one."""
    return gate_record["outcome"] if gate_record["passed"] else "fail"


def gated_metrics(records: Iterable[CaseRecord]) -> list[str]:
    """Return the metrics that have a gate in any record."""
    return list(dict.fromkeys(metric for record in records for metric in worst_gates(record)))


def baseline_name(rescaled: bool) -> str:
    """Return the name of the baseline.

    The baseline is the model as it is, or with its logit scale refitted as well.
    """
    return "full precision" + RESCALE * rescaled


def baseline_values(records: Iterable[CaseRecord]) -> dict[str, float]:
    """Return the full-precision value of each gated metric.

    All records need to have the same baseline.
    """
    return {
        metric: gate_record["baseline"] for record in records for metric, gate_record in worst_gates(record).items()
    }


def group_by_benchmark(records: Iterable[CaseRecord]) -> dict[tuple[str, str], list[CaseRecord]]:
    """Group records by model and benchmark, in the order of the records."""
    groups: dict[tuple[str, str], list[CaseRecord]] = {}
    for record in records:
        groups.setdefault((record["model"], record["benchmark"]), []).append(record)
    return groups


def _worst(gate_records: Iterable[GateRecord]) -> dict[str, GateRecord]:
    """Return the worst gate of each metric; the first of equal ones."""
    worst: dict[str, GateRecord] = {}
    for gate_record in gate_records:
        earlier = worst.setdefault(gate_record["metric"], gate_record)
        worst[gate_record["metric"]] = max(earlier, gate_record, key=_severity)
    return worst


def _severity(gate_record: GateRecord) -> tuple[bool, int]:
    return not gate_record["passed"], SEVERITY[gate_record["outcome"]]
