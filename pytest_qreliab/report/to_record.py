"""Turn a result into a record of plain scalars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_qreliab.metrics import registry

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.result import Result
    from pytest_qreliab.evaluation.verdicts.controls import ControlFindings
    from pytest_qreliab.evaluation.verdicts.gates import Verdict
    from pytest_qreliab.statistics.interval import Interval
from pytest_qreliab.report.records import CaseRecord, ControlsRecord, GateRecord, MetricRecord, Size


def to_record(result: Result, parameters: str, repeat: str) -> CaseRecord:
    """The entry of a result. `parameters` are the quantizer's, in words, `repeat` a command that measures it again."""
    case, coverage = result.case, result.coverage
    return CaseRecord(
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
        curves=result.curves,  # type: ignore[typeddict-item]
        data=dict(result.data),
        environment=dict(result.environment),
        warnings=list(result.warnings),
        repeat=repeat,
        encoded=result.work.encoded,
        known=result.work.known,
        peak_memory=result.work.peak_memory,
        peak_device_memory=result.work.peak_device_memory,
    )


def _metric(result: Result, name: str) -> MetricRecord:
    change, metric = result.changes[name], registry.lookup(name)
    low, high = _bounds(None if change.bounds is None else change.bounds(result.alpha))
    return MetricRecord(
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


def _gate(verdict: Verdict) -> GateRecord:
    gate = verdict.gate
    low, high = _bounds(verdict.interval)
    return GateRecord(
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
        settling_n=verdict.samples_to_settle,
        problem=verdict.problem,
    )


def _controls(controls: ControlFindings) -> ControlsRecord:
    changes = {
        found.metric: [(moved.change, *moved.interval) for moved in (found.quantized, *found.controls.values())]
        for found in controls.explanations
    }
    return ControlsRecord(
        matched=controls.matched,
        problem=controls.problem,
        residuals=dict(controls.residuals),
        changes=changes,
        conclusions={found.metric: found.conclusion for found in controls.explanations},
    )
