"""The result of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_qreliab.config.cases import Case
from pytest_qreliab.evaluation.measurement.comparison import Change
from pytest_qreliab.evaluation.verdicts.controls import ControlFindings
from pytest_qreliab.evaluation.verdicts.gates import Verdict
from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers.inspection.coverage import Coverage

Outline = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The work and the memory that a result took."""

    encoded: int  # images and prompts that went through a model for it
    known: int  # those that had done so before
    peak_memory: int  # bytes, the most that the process held until then
    peak_device_memory: int  # bytes, the same on a GPU


@dataclass(frozen=True, kw_only=True)
class Result:
    """A case, measured and judged."""

    case: Case
    rescaled: bool  # whether the logit scale was refitted, in the baseline and in the quantized model
    changes: Mapping[str, Change]  # of every metric, by its canonical name
    verdicts: tuple[Verdict, ...]  # of every gate
    coverage: Coverage | None  # None for recorded outputs
    samples: int  # in-distribution
    device: str
    error_probability: float  # one-sided, of each interval
    controls: ControlFindings | None
    cost: Cost
    data: Mapping[str, str]  # what it was measured on, in words, if there is a snapshot or a report
    environment: Mapping[str, str]  # what it was measured with, likewise
    curves: Outline | None  # what can be drawn of it
    trained_on: str  # what the quantizer was trained on, in words; empty if it does not train
    baseline: Mapping[str, str]  # what is known of the full-precision model, in words
    skipped: Mapping[str, str]  # why the gates on a metric were not judged, by the metric
    warnings: tuple[str, ...]  # what a reader should know

    def skipped_for(self, aspect: str | None) -> dict[str, str]:
        """Return why gates of an aspect were not judged, by metric."""
        return {
            metric: reason
            for metric, reason in self.skipped.items()
            if aspect in (None, registry.lookup(metric).aspect)
        }

    def verdicts_for(self, aspect: str | None) -> list[Verdict]:
        """Return the verdicts of one aspect, or all of them."""
        return [verdict for verdict in self.verdicts if aspect in (None, verdict.gate.aspect)]
