"""Size against reliability of quantized models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_qreliab.metrics import registry
from pytest_qreliab.report.queries import passed, worst_gates
from pytest_qreliab.report.records import CaseRecord


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A quantized model with its cases on all benchmarks."""

    model: str
    quantization: str
    size: int  # bytes
    full: int  # bytes of the model in full precision
    passed: bool  # whether all its cases pass
    harms: dict[tuple[str, str], float]  # by benchmark and gated metric: positive is worse than full precision

    @property
    def share(self) -> float:
        """The size as a share of full precision."""
        return self.size / self.full


def find_candidates(records: Sequence[CaseRecord]) -> list[Candidate]:
    """Return the quantized models of known size, the smallest first."""
    by_build: dict[tuple[str, str], list[CaseRecord]] = {}
    for record in records:
        by_build.setdefault((record["model"], record["quantization"]), []).append(record)
    candidates = [
        Candidate(
            model=model,
            quantization=quantization,
            size=size["quantized"],
            full=size["full"],
            passed=all(map(passed, cases)),
            harms={(case["benchmark"], metric): harm for case in cases for metric, harm in _harms(case).items()},
        )
        for (model, quantization), cases in by_build.items()
        if (size := cases[0]["size"]) is not None
    ]
    return sorted(candidates, key=lambda candidate: candidate.size)


def _harms(record: CaseRecord) -> dict[str, float]:
    """Return how much worse each gated metric is than in full precision."""
    return {
        metric: registry.lookup(metric).harm(gate_record["quantized"] - gate_record["baseline"])
        for metric, gate_record in worst_gates(record).items()
    }


def pareto_front(candidates: Sequence[Candidate], key: tuple[str, str]) -> list[Candidate]:
    """Return the candidates that none as small or smaller beats.

    Args:
        candidates: Quantized models of one original.
        key: The benchmark and the metric whose harm counts.

    Returns:
        The front, the smallest first.
    """
    least, front = math.inf, []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.size, candidate.harms.get(key, math.nan))):
        harm = candidate.harms.get(key, math.nan)
        if harm < least:
            least = harm
            front.append(candidate)
    return front


def smallest_passing(records: Sequence[CaseRecord]) -> list[str]:
    """Name the smallest passing quantized model of each model.

    Models that were measured in one size are left out.
    """
    models = dict.fromkeys(record["model"] for record in records)
    candidates = find_candidates(records)
    lines = []
    for model in models:
        of_model = [candidate for candidate in candidates if candidate.model == model]
        if len(of_model) < 2:
            continue
        smallest = next((candidate for candidate in of_model if candidate.passed), None)
        name = f" of {model}" if len(models) > 1 else ""
        lines.append(
            f"smallest passing{name}: {smallest.quantization}, {smallest.share:.2f} of full size"
            if smallest
            else f"smallest passing{name}: none of {len(of_model)}"
        )
    return lines
