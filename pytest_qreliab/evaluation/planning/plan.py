"""The plan of a run: its cases, gates and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.thresholds import Gate, Thresholds
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.recording import Recording
from pytest_qreliab.evaluation.planning.training_data import TrainingData
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import Need
from pytest_qreliab.models.description import ModelDescription
from pytest_qreliab.models.loading import Loader
from pytest_qreliab.quantizers.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run: all that it may do, checked before any model is loaded."""

    cases: tuple[Case, ...]  # in order
    models: Mapping[str, Loader]  # by name
    descriptions: Mapping[str, ModelDescription]  # of the models, by name
    recipes: Mapping[str, Recipe]  # by the name of the quantizer
    recordings: Mapping[str, Recording]  # recorded outputs, by the name of the model or quantizer
    gates: Mapping[Case, tuple[Gate, ...]]  # on the change from full precision
    drift: Mapping[Case, tuple[Gate, ...]]  # on the drift from accepted values
    skipped: Mapping[Case, Mapping[str, str]]  # why other gates of the thresholds are not judged, by metric
    thresholds: Mapping[Case, Thresholds]  # the source of the gates
    data: Mapping[str, Dataset]  # by benchmark, not yet decoded
    training: Mapping[Case, TrainingData]  # what each quantizer is trained on
    controls: str  # the error that the matched controls of a case share with it: none, weights or features
    figures: Path | None  # the folder of figures
    device: str
    compiled: bool  # whether blocks are compiled
    deterministic: bool  # whether one kernel and one thread compute everything
    records_curves: bool  # whether results hold what is drawn of them

    def error_probability(self, case: Case) -> float:
        """Return the one-sided error probability of each interval of a case.

        By Bonferroni every gate of the plan has an equal share. The plan counts, not what -k or --lf leave of it, so
        that repeating one test repeats its verdict. For the same reason Holm's steps are taken within a case, which
        has its gates' shares together.
        """
        policy = self.thresholds[case].policy
        shares = sum(map(len, self.gates.values())) if policy.correction in ("bonferroni", "holm") else 1
        return (1 - policy.confidence) / max(shares, 1)  # there are none if all gates are on the drift

    def needs(self, benchmark: str) -> frozenset[Need]:
        """Return what gates, figures and curves need of a benchmark beyond its images."""
        gated = (gate for case in self.cases if case.benchmark == benchmark for gate in self.all_gates(case))
        needs: set[Need] = set()
        if self.figures is not None:
            needs |= {"blocks", "penultimate"}
        if self.records_curves:
            needs |= {"blocks"}
        return frozenset(needs).union(*(registry.lookup(gate.metric).needs for gate in gated))

    def warnings(self, case: Case) -> tuple[str, ...]:
        """Return what a reader of the results of a case should know, as far as it is known before the run."""
        of_outputs = [
            text
            for name in (case.build.model, case.build.quantizer)
            if name in self.recordings
            for text in self.recordings[name].warnings
        ]
        of_training = filter(None, [self.training[case].warning])
        of_data = self.data[case.benchmark].warnings
        return (*self.descriptions[case.build.model].warnings, *of_data, *of_training, *of_outputs)

    def all_gates(self, case: Case) -> tuple[Gate, ...]:
        """Return the gates of a case on the change from full precision, then those on the drift."""
        return (*self.gates[case], *self.drift[case])

    def tested(self, case: Case, aspect: str) -> bool:
        """Return whether any gate of the case is of that aspect."""
        return any(gate.aspect == aspect for gate in self.all_gates(case))
