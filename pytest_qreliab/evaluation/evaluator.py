"""The evaluator: from a case to its result."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import torch

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.embedding import kernels, keys
from pytest_qreliab.embedding.embedder import Embedder
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.errors import NotShownError
from pytest_qreliab.evaluation import provenance
from pytest_qreliab.evaluation.cached_facts import CachedFacts
from pytest_qreliab.evaluation.case_measurer import CaseMeasurer
from pytest_qreliab.evaluation.duplicates import Duplicates
from pytest_qreliab.evaluation.kernel_spread import KernelSpread
from pytest_qreliab.evaluation.last_only import LastOnly
from pytest_qreliab.evaluation.matched_controls import MatchedControls
from pytest_qreliab.evaluation.measurement.comparison import Change, compare
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.model_cache import ModelCache
from pytest_qreliab.evaluation.model_pool import ModelPool, QuantizedClip
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.evaluation.progress import Progress, short_name, silent
from pytest_qreliab.evaluation.result import Cost, Outline, Result
from pytest_qreliab.evaluation.verdicts import baseline_check, self_check
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedResults
from pytest_qreliab.evaluation.verdicts.gates import JudgingRule, judge, judge_drift, not_shown
from pytest_qreliab.evaluation.verdicts.self_check import SelfCheck
from pytest_qreliab.hashing import digest
from pytest_qreliab.metrics import registry
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.devices import peak_memory
from pytest_qreliab.quantizers.inspection import weight_spectra
from pytest_qreliab.quantizers.inspection.weight_spectra import WeightSpectrum

# Draws a case from its measurements, in full precision and quantized, and the spectra of its weights.
Draw = Callable[[Case, Measurement, Measurement, Sequence[WeightSpectrum]], None]


class Evaluator:
    """The results of a plan's cases, from the store if it has what they need, else from the models.

    At most one baseline and one quantized model are in memory, and the measurements of one baseline. Asking in the
    plan's order makes each once. Results do not depend on that order. Without a store nothing outlives the evaluator.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        progress: Progress = silent,
        store: Store | None = None,
        draw: Draw | None = None,
        curves: Callable[[Measurement, Measurement], Outline] | None = None,
        accepted: AcceptedResults | None = None,
    ) -> None:
        self._plan, self._progress, self._draw, self._curves, self._accepted = plan, progress, draw, curves, accepted
        passing = _temporary_store(self)
        kept = store or passing
        self.embedder = Embedder(Reader(kept, keys.code_key()))
        self._pool = ModelPool(
            plan,
            self.embedder.reader,
            progress,
            checkpoints=None if store is None else store.training,
            observe=lambda build, name, make: self._facts.observed(build, name, make),
        )
        self.model_cache = ModelCache(
            plan=plan,
            pool=self._pool,
            reader=self.embedder.reader,
            store=kept,
            passing=passing,
            environment=digest(keys.environment_key(self.device), plan.compiled, plan.deterministic),
        )
        self._facts = CachedFacts(models=self.model_cache, progress=progress)
        self._measurer = CaseMeasurer(
            models=self.model_cache, facts=self._facts, embedder=self.embedder, progress=progress
        )
        self._duplicates = Duplicates(models=self.model_cache)
        self._controls = MatchedControls(models=self.model_cache, measurer=self._measurer, progress=progress)
        self._kernel_spread = KernelSpread(models=self.model_cache, measurer=self._measurer)
        self._results: LastOnly[Build, dict[str, Result]] = LastOnly()  # as large as their samples
        self._self_checks: dict[Case, SelfCheck] = {}

    @property
    def device(self) -> torch.device:
        """The device of the models."""
        return self._pool.device

    def baseline(self, model: str) -> Clip:
        """Return the full-precision model. Raises InputError if it cannot be loaded."""
        with self._kernels():
            return self._pool.baseline(model)

    def quantized(self, build: Build) -> QuantizedClip:
        """Return the quantized model. Raises InputError if it cannot be made, or covers less than declared."""
        with self._kernels():
            return self._pool.quantized(build)

    def result(self, case: Case) -> Result:
        """Measure the case on both models and judge it.

        Raises:
            InputError: A model or an image cannot be used.
        """
        results = self._results.get(case.build, dict)
        if case.benchmark not in results:
            with self._kernels():
                results[case.benchmark] = self._evaluate(case)
        return results[case.benchmark]

    def self_check(self, case: Case) -> SelfCheck:
        """Try the case's gates on pairs that do not differ.

        Raises:
            InputError: A model or an image cannot be used.
        """
        if case not in self._self_checks:
            with self._kernels():
                baseline, quantized = self._measurer.measure_pair(case)
            description = f"{short_name(case.build.model)} {case.quantization} self-check on {case.benchmark}"
            with self._progress(description, self_check.REPLICATES) as advance:
                self._self_checks[case] = self_check.check(
                    case,
                    baseline,
                    quantized,
                    self._plan.gates[case],
                    self._rule(case, baseline),
                    device=str(self.device),
                    advance=advance,
                )
        return self._self_checks[case]

    def _evaluate(self, case: Case) -> Result:
        plan, embedder = self._plan, self.embedder
        encoded, known = embedder.encoded, embedder.known
        self._duplicates.check_training(case)
        baseline, quantized = self._measurer.measure_pair(case)
        shared = self._duplicates.warnings(case)  # now that all images are decoded
        changes = self._compare(case, baseline, quantized)
        if self._draw is not None:
            self._draw(case, baseline, quantized, self._facts.visible_weight_spectra(case.build))
        skippable = [gate for gate in plan.all_gates(case) if gate.skippable]
        skipped = {**plan.skipped[case], **not_shown(changes, skippable)}
        gates, drift = (
            [gate for gate in group if gate.metric not in skipped] for group in (plan.gates[case], plan.drift[case])
        )
        verdicts = judge(changes, gates, self._rule(case, baseline))
        controls = self._controls.findings(case, baseline, quantized)
        data, environment, differences = self._describe(case)
        if self._accepted is not None:
            drifts = judge_drift(changes, drift, self._accepted.accepted(case, data))
            verdicts += self._kernel_spread.explain(case, drifts, baseline, quantized)
        doubts = self._doubts(case, baseline)
        if doubts and plan.thresholds[case].policy.inconclusive == "fail":
            verdicts = baseline_check.refuse(verdicts, doubts)
        warnings = [*plan.warnings(case), *shared, *doubts, *baseline.warnings, *quantized.warnings, *differences]
        return Result(
            case=case,
            rescaled=plan.recipes[case.build.quantizer].rescale,
            changes=changes,
            verdicts=tuple(verdicts),
            coverage=self._facts.coverage(case.build),
            samples=baseline.samples,
            device=str(self.device),
            error_probability=plan.error_probability(case),
            controls=controls,
            cost=Cost(
                encoded=embedder.encoded - encoded,
                known=embedder.known - known,
                peak_memory=peak_memory(),
                peak_device_memory=torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0,
            ),
            data=data,
            environment=environment,
            curves=None if self._curves is None else self._curves(baseline, quantized),
            trained_on=plan.training[case].words,
            baseline=plan.descriptions[case.build.model].facts,
            skipped=skipped,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _kernels(self) -> AbstractContextManager[None]:
        return kernels.deterministic() if self._plan.deterministic else nullcontext()

    def _doubts(self, case: Case, baseline: Measurement) -> list[str]:
        """Return why the full-precision model is probably not the one that was meant."""
        gated = [gate.metric for gate in self._plan.all_gates(case)]
        doubts = baseline_check.find_doubts(baseline, gated, 1 - self._plan.thresholds[case].policy.confidence)
        return [f"{short_name(case.build.model)} on {case.benchmark}: {doubt}" for doubt in doubts]

    def _compare(self, case: Case, baseline: Measurement, quantized: Measurement) -> dict[str, Change]:
        wanted = {registry.canonical(gate.metric) for gate in self._plan.all_gates(case)}
        of_weights = {name for name in wanted if "weights" in registry.lookup(name).needs}
        if not of_weights:
            return compare(baseline, quantized, wanted)
        try:
            values = weight_spectra.metrics(self._facts.weight_spectra(case.build))
        except NotShownError as error:
            unknown = {name: Change.not_shown(name, str(error)) for name in of_weights}
            return {**compare(baseline, quantized, wanted), **unknown}
        return compare(baseline, quantized, wanted, *values)

    def _rule(self, case: Case, baseline: Measurement) -> JudgingRule:
        policy = self._plan.thresholds[case].policy
        return JudgingRule(
            error_probability=self._plan.error_probability(case), policy=policy, samples=baseline.samples
        )

    def _describe(self, case: Case) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """Return the data and the environment, if anyone asks, and what was different when the case was accepted."""
        if self._accepted is None and not self._plan.records_curves:
            return {}, {}, []
        images, model = self._plan.data[case.benchmark], self._plan.descriptions[case.build.model]
        data = provenance.describe_data(images, self.embedder.reader.manifest)
        environment = provenance.describe_environment(self.device, deterministic=self._plan.deterministic)
        environment |= provenance.describe_commits(model.facts, images)
        return data, environment, self._accepted.differences(case, data, environment) if self._accepted else []


def _temporary_store(owner: object) -> Store:
    """Return a store whose folder is removed with its owner."""
    folder = mkdtemp(prefix="qreliab-")
    weakref.finalize(owner, rmtree, folder, ignore_errors=True)
    return Store(Path(folder))
