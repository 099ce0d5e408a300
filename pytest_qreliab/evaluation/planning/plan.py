"""The plan of a run: its cases, gates and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.thresholds import Gate, Thresholds
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.metrics import registry
from pytest_qreliab.models.loading import Loader
from pytest_qreliab.quantizers.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """What a run may do: its cases in order, what loads their models, the recipes of their quantizers, recorded
    outputs by the model's or quantizer's name, the gates of each case, the thresholds they are from, and each
    benchmark's data, not yet decoded. `unmeasurable` names, for a benchmark or a file of recorded outputs, what the
    thresholds gate and it cannot tell. `controls` says what each case's matched controls have in common with it,
    `figures` where its figures go, `compiled` whether blocks are compiled. `drift` are the gates of each case on
    the drift from accepted values. `records_curves` says that results hold what is drawn of them."""

    cases: tuple[Case, ...]
    models: Mapping[str, Loader]
    recipes: Mapping[str, Recipe]
    recordings: Mapping[str, Recording]
    gates: Mapping[Case, tuple[Gate, ...]]
    thresholds: Mapping[Case, Thresholds]
    data: Mapping[str, Dataset]
    unmeasurable: Mapping[str, list[str]]
    controls: str
    figures: Path | None
    device: str
    compiled: bool = False
    drift: Mapping[Case, tuple[Gate, ...]] = field(default_factory=dict)
    records_curves: bool = False

    def alpha(self, case: Case) -> float:
        """One-sided error probability of each interval: by Bonferroni an equal share for every gate of the plan.

        The plan counts, not what -k or --lf leave of it, so that repeating one test repeats its verdict. For the same
        reason Holm's steps are taken within a case, which has its gates' shares together.
        """
        policy = self.thresholds[case].policy
        shares = sum(map(len, self.gates.values())) if policy.correction in ("bonferroni", "holm") else 1
        return (1 - policy.confidence) / max(shares, 1)  # 0 where there are none but on the drift

    def needs(self, benchmark: str) -> frozenset[registry.Need]:
        """What the gates on a benchmark need beyond its images."""
        gated = (gate for case in self.cases if case.benchmark == benchmark for gate in self.all_gates(case))
        drawn: set[registry.Need] = set()
        if self.figures is not None:
            drawn |= {"blocks", "penultimate"}
        if self.records_curves:
            drawn |= {"blocks"}
        return frozenset(drawn).union(*(registry.lookup(gate.metric).needs for gate in gated))

    def all_gates(self, case: Case) -> tuple[Gate, ...]:
        """Those on the change from full precision, and those on the drift from the snapshot."""
        return (*self.gates[case], *self.drift.get(case, ()))

    def tested(self, case: Case, aspect: str) -> bool:
        """Whether any gate of the case is of that aspect."""
        return any(gate.aspect == aspect for gate in self.all_gates(case))
