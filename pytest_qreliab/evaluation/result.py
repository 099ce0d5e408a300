"""The result of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_qreliab.config.cases import Case
from pytest_qreliab.evaluation.measurement.comparison import Change
from pytest_qreliab.evaluation.verdicts.controls import ControlFindings
from pytest_qreliab.evaluation.verdicts.gates import Verdict
from pytest_qreliab.quantizers.inspection.coverage import Coverage

Outline = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a result took: the images and prompts that went through a model for it, and those that had done so before;
    and the most memory, in bytes, that the process held until then, on the device as well."""

    encoded: int
    known: int
    peak_memory: int
    peak_device_memory: int


@dataclass(frozen=True)
class Result:
    """A case, measured and judged: every metric's change, the verdict of every gate, the coverage, which of recorded
    outputs is not known.

    `rescaled` says that the logit scale was refitted, in the baseline as in the quantized model. `data` and
    `environment` describe what it was measured on and with, `curves` is what can be drawn of it, and `warnings` say
    what is not as it was accepted, where there is a snapshot or a report.
    """

    case: Case
    rescaled: bool
    changes: dict[str, Change]
    verdicts: tuple[Verdict, ...]
    coverage: Coverage | None
    samples: int
    device: str
    alpha: float
    controls: ControlFindings | None
    work: Cost
    data: Mapping[str, str]
    environment: Mapping[str, str]
    curves: Outline | None
    warnings: tuple[str, ...]

    def verdicts_for(self, aspect: str | None) -> list[Verdict]:
        """The verdicts of one aspect, or all of them."""
        return [verdict for verdict in self.verdicts if aspect in (None, verdict.gate.aspect)]
