"""Size against reliability: which quantized models pass, and which of them nothing smaller beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_qreliab.metrics import registry
from pytest_qreliab.report.records import CaseRecord, passed, worst_gates


@dataclass(frozen=True)
class Candidate:
    """A quantized model of one size, with its cases on all benchmarks; `size` is a share of `full` bytes.

    `harms` is, by benchmark and gated metric, how much worse it is than full precision, negative for better.
    """

    model: str
    quantization: str
    size: int
    full: int
    passed: bool
    harms: dict[tuple[str, str], float]

    @property
    def share(self) -> float:
        return self.size / self.full


def candidates(entries: Sequence[CaseRecord]) -> list[Candidate]:
    """The quantized models whose size is known, the smallest first."""
    by_build: dict[tuple[str, str], list[CaseRecord]] = {}
    for entry in entries:
        by_build.setdefault((entry["model"], entry["quantization"]), []).append(entry)
    found = []
    for (model, quantization), cases in by_build.items():
        size = cases[0]["size"]
        if size is not None:
            harms = {(case["benchmark"], metric): harm for case in cases for metric, harm in _harms(case).items()}
            found.append(
                Candidate(model, quantization, size["quantized"], size["full"], all(map(passed, cases)), harms)
            )
    return sorted(found, key=lambda candidate: candidate.size)


def _harms(entry: CaseRecord) -> dict[str, float]:
    return {
        metric: registry.lookup(metric).harm(gate["quantized"] - gate["baseline"])
        for metric, gate in worst_gates(entry).items()
    }


def front(found: Sequence[Candidate], key: tuple[str, str]) -> list[Candidate]:
    """The Pareto front of one metric on one benchmark, the smallest first: nothing as small has less harm."""
    best, kept = math.inf, []
    for candidate in sorted(found, key=lambda of: (of.size, of.harms.get(key, math.nan))):
        if candidate.harms.get(key, math.nan) < best:
            best = candidate.harms[key]
            kept.append(candidate)
    return kept


def smallest_passing(entries: Sequence[CaseRecord]) -> list[str]:
    """A line for each model of which several sizes were measured."""
    found = candidates(entries)
    lines = []
    for model in dict.fromkeys(entry["model"] for entry in entries):
        of_model = [candidate for candidate in found if candidate.model == model]
        if len(of_model) < 2:
            continue
        best = next((candidate for candidate in of_model if candidate.passed), None)
        name = f" of {model}" if len({entry["model"] for entry in entries}) > 1 else ""
        lines.append(
            f"smallest passing{name}: {best.quantization}, {best.share:.2f} of full size"
            if best
            else f"smallest passing{name}: none of {len(of_model)}"
        )
    return lines
