"""A result as plain scalars: what travels on a test report between processes, and what every report is made from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict  # which pydantic can check before Python 3.12

from pytest_qreliab.metrics import registry

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.evaluator import Result
    from pytest_qreliab.evaluation.verdicts.controls import Controls
    from pytest_qreliab.evaluation.verdicts.gates import Verdict
    from pytest_qreliab.statistics.interval import Interval

# A number that may be NaN, in JSON null, or infinite, in JSON a string.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}, {"enum": ["Infinity", "-Infinity"]}]}),
]


class MetricEntry(TypedDict):
    """One metric in both models. `low` and `high` bound the change, of gated metrics that have an interval; `problem`
    says why a value is not a number."""

    metric: str
    aspect: str
    better: str
    baseline: Number
    quantized: Number
    change: Number
    low: Number | None
    high: Number | None
    problem: str


class GateEntry(TypedDict):
    """The verdict of one gate; see `Verdict`. `low` and `high` bound the harm, `where` is the line of its limit."""

    metric: str
    aspect: str
    limit: str
    value: float
    where: str
    outcome: Literal["pass", "fail", "inconclusive"]
    passed: bool
    baseline: Number
    quantized: Number
    accepted: Number | None
    harm: Number
    low: Number | None
    high: Number | None
    method: str
    settling_n: int | None
    problem: str


class ControlsEntry(TypedDict):
    """What the matched controls of a case show. The changes of each metric, (change, low, high), are those of the
    quantized model and of the controls, by name, in the order of `residuals`."""

    matched: str
    problem: str
    residuals: dict[str, Number]
    changes: dict[str, list[tuple[Number, Number, Number]]]
    conclusions: dict[str, str]


class Size(TypedDict):
    """Bytes of all weights, each counted by the bits that it takes."""

    quantized: int
    full: int


class Bin(TypedDict):
    """One of 15 bins of equal width over the confidence: its mean, the accuracy, and the share of all samples."""

    confidence: float
    accuracy: float
    share: float


Points = list[tuple[float, float]]


class Curves(TypedDict):
    """What is drawn of a case. Lists of two are of the baseline and of the quantized model.

    `reliability`: the bins that hold samples. `roc`: by OOD set, (false positive rate, true positive rate).
    `corruptions`: accuracies by kind and severity. `spectra`: by block, (frequency in cycles per patch, mean power).
    `singular_values`: (rank, value) of the centred image features. `sqnr`: (rank, dB) of the quantized model alone.
    """

    reliability: list[list[Bin]]
    roc: dict[str, list[Points]]
    corruptions: dict[str, dict[str, tuple[float, float]]]
    spectra: dict[str, list[Points]]
    singular_values: list[Points]
    sqnr: Points


class Entry(TypedDict):
    """A case, measured and judged.

    `confidence` is that of each bound. `data` and `environment` describe what it was measured on and with, and `curves`
    is what is drawn of it, where a report or a snapshot asked for them. `warnings` are what a reader should know.
    """

    case: str
    model: str
    quantizer: str
    bits: str
    scope: str
    benchmark: str
    quantization: str
    rescaled: bool
    parameters: str
    samples: int
    device: str
    confidence: float
    coverage: float | None
    size: Size | None
    metrics: list[MetricEntry]
    gates: list[GateEntry]
    controls: ControlsEntry | None
    curves: Curves | None
    data: dict[str, str]
    environment: dict[str, str]
    warnings: list[str]
    repeat: str
    encoded: int
    known: int
    peak_memory: int
    peak_device_memory: int


def of(result: Result, parameters: str, repeat: str) -> Entry:
    """The entry of a result. `parameters` are the quantizer's, in words, `repeat` a command that measures it again."""
    case, coverage = result.case, result.coverage
    return Entry(
        case=case.id,
        model=case.build.model,
        quantizer=case.build.quantizer,
        bits=str(case.build.bits),
        scope=case.build.scope,
        benchmark=case.benchmark,
        quantization=case.quantization,
        rescaled=result.rescaled,
        parameters=parameters,
        samples=result.samples,
        device=result.device,
        confidence=1 - result.alpha,
        coverage=None if coverage is None else coverage.weights,
        size=None if coverage is None else Size(quantized=coverage.size, full=coverage.full_size),
        metrics=[_metric(result, name) for name in result.changes],
        gates=[_gate(verdict) for verdict in result.verdicts],
        controls=None if result.controls is None else _controls(result.controls),
        curves=result.outline,  # type: ignore[typeddict-item]
        data=dict(result.data),
        environment=dict(result.environment),
        warnings=list(result.warnings),
        repeat=repeat,
        encoded=result.work.encoded,
        known=result.work.known,
        peak_memory=result.work.peak_memory,
        peak_device_memory=result.work.peak_device_memory,
    )


def _metric(result: Result, name: str) -> MetricEntry:
    change, metric = result.changes[name], registry.lookup(name)
    low, high = _bounds(None if change.bounds is None else change.bounds(result.alpha))
    return MetricEntry(
        metric=name,
        aspect=metric.aspect,
        better=metric.better,
        baseline=change.baseline,
        quantized=change.quantized,
        change=change.delta,
        low=low,
        high=high,
        problem=change.problem,
    )


def _bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    """Both ends; None for one that there is none of."""
    low, high = interval or (math.nan, math.nan)
    return None if math.isnan(low) else low, None if math.isnan(high) else high


def _gate(verdict: Verdict) -> GateEntry:
    gate = verdict.gate
    low, high = _bounds(verdict.interval)
    return GateEntry(
        metric=gate.metric,
        aspect=gate.aspect,
        limit=gate.limit,
        value=gate.value,
        where=gate.where,
        outcome=verdict.outcome,
        passed=verdict.passed,
        baseline=verdict.baseline,
        quantized=verdict.quantized,
        accepted=verdict.accepted,
        harm=verdict.harm,
        low=low,
        high=high,
        method=verdict.method,
        settling_n=verdict.settling_n,
        problem=verdict.problem,
    )


def _controls(controls: Controls) -> ControlsEntry:
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


# What readers of entries ask of them

RANK = {"pass": 0, "inconclusive": 1, "fail": 2}


def gated(entry: Entry) -> dict[str, GateEntry]:
    """The gated metrics, each with its worst gate on the change from full precision, or on the drift if that is all."""
    paired = _worst(gate for gate in entry["gates"] if not is_drift(gate))
    return {**_worst(entry["gates"]), **paired}


def drifted(entry: Entry) -> dict[str, GateEntry]:
    """The metrics that a snapshot does not let pass, with the gate that says so."""
    return _worst(gate for gate in entry["gates"] if is_drift(gate) and not gate["passed"])


def is_drift(gate: GateEntry) -> bool:
    """Whether it is on the change from what was accepted."""
    return gate["limit"] == "max_drift"


def drift(gate: GateEntry) -> float:
    """The change from what was accepted; NaN where nothing was."""
    return math.nan if gate["accepted"] is None else gate["quantized"] - gate["accepted"]


def verdict(gate: GateEntry) -> str:
    """The outcome, `fail` where the thresholds do not let an inconclusive one pass."""
    return gate["outcome"] if gate["passed"] else "fail"


def _worst(gates: Iterable[GateEntry]) -> dict[str, GateEntry]:
    """The worst gate of each metric."""
    worst: dict[str, GateEntry] = {}
    for gate in gates:
        known = worst.setdefault(gate["metric"], gate)
        worst[gate["metric"]] = max(known, gate, key=lambda found: (not found["passed"], RANK[found["outcome"]]))
    return worst


def passed(entry: Entry) -> bool:
    """Whether every gate lets the case pass."""
    return all(gate["passed"] for gate in entry["gates"])
