"""Turn a result into a record of plain scalars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_qreliab.metrics import registry
from pytest_qreliab.report.records import CaseRecord, ControlsRecord, GateRecord, MetricRecord, Size

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.result import Result
    from pytest_qreliab.evaluation.verdicts.controls import ControlFindings
    from pytest_qreliab.evaluation.verdicts.gates import Verdict
    from pytest_qreliab.statistics.interval import Interval


def to_record(result: Result, parameters: str, repeat: str) -> CaseRecord:
    """Return the record of a result.

    Args:
        result: A case, measured and judged.
        parameters: The parameters of the quantizer, in words.
        repeat: A command that measures the case again.
    """
    case, coverage = result.case, result.coverage
    return CaseRecord(
        case=case.id,
        model=case.build.model,
        quantizer=case.build.quantizer,
        bits=str(case.build.bits),
        scope=case.build.scope,
        benchmark=case.benchmark,
        quantization=_quantization(result),
        rescaled=result.rescaled,
        parameters=parameters,
        trained_on=result.trained_on,
        samples=result.samples,
        device=result.device,
        confidence=1 - result.error_probability,
        coverage=None if coverage is None else coverage.weights,
        product_coverage=None if coverage is None else coverage.products,
        size=None if coverage is None else Size(quantized=coverage.size, full=coverage.full_size),
        metrics=[_metric_record(result, name) for name in result.changes],
        gates=[_gate_record(verdict) for verdict in result.verdicts],
        controls=None if result.controls is None else _controls_record(result.controls),
        curves=result.curves,  # type: ignore[typeddict-item]
        data=dict(result.data),
        environment=dict(result.environment),
        baseline=dict(result.baseline),
        skipped=dict(result.skipped),
        warnings=list(result.warnings),
        repeat=repeat,
        encoded=result.cost.encoded,
        known=result.cost.known,
        peak_memory=result.cost.peak_memory,
        peak_device_memory=result.cost.peak_device_memory,
    )


def _quantization(result: Result) -> str:
    """Return the quantizer, bits and scope of a case, with the mean of the bits if layers have bits of their own."""
    case, coverage = result.case, result.coverage
    if coverage is None or coverage.mean_bits is None:
        return case.quantization
    return case.quantization_at(case.build.bits.at_mean(coverage.mean_bits))


def _metric_record(result: Result, name: str) -> MetricRecord:
    change, metric = result.changes[name], registry.lookup(name)
    low, high = _ends(None if change.bounds is None else change.bounds(result.error_probability))
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


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    """Return both ends of an interval, None if one is missing."""
    low, high = interval or (math.nan, math.nan)
    return None if math.isnan(low) else low, None if math.isnan(high) else high


def _gate_record(verdict: Verdict) -> GateRecord:
    gate = verdict.gate
    low, high = _ends(verdict.interval)
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
        kernel_spread=verdict.kernel_spread,
        harm=verdict.harm,
        low=low,
        high=high,
        method=verdict.method,
        settling_n=verdict.samples_to_settle,
        problem=verdict.problem,
    )


def _controls_record(controls: ControlFindings) -> ControlsRecord:
    changes = {
        explanation.metric: [
            (effect.change, *effect.interval) for effect in (explanation.quantized, *explanation.controls.values())
        ]
        for explanation in controls.explanations
    }
    return ControlsRecord(
        matched=controls.matched,
        problem=controls.problem,
        residuals=dict(controls.residuals),
        changes=changes,
        conclusions={explanation.metric: explanation.conclusion for explanation in controls.explanations},
    )
