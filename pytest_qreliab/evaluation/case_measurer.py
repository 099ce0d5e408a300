"""Measurements of cases, from embeddings or from recorded outputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from pytest_qreliab.config.cases import Case
from pytest_qreliab.embedding.embedder import Embedder, count_inputs
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.recorded import recorded
from pytest_qreliab.embedding.records import Embeddings
from pytest_qreliab.evaluation.cached_facts import CachedFacts
from pytest_qreliab.evaluation.last_only import LastOnly
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.model_cache import ModelCache
from pytest_qreliab.evaluation.progress import Progress, short_name
from pytest_qreliab.metrics.definitions import Need


@dataclass
class BaselineCache:
    """The embeddings and measurements of one full-precision model."""

    embeddings: dict[str, Embeddings] = field(default_factory=dict)  # by benchmark
    # By benchmark, and by the benchmark whose images the logit scale is refitted on, None if it is not refitted.
    measurements: dict[tuple[str, str | None], Measurement] = field(default_factory=dict)


@dataclass(kw_only=True)
class CaseMeasurer:
    """The measurements of a plan's cases. Those of one full-precision model are held at a time."""

    models: ModelCache
    facts: CachedFacts
    embedder: Embedder
    progress: Progress
    _baselines: LastOnly[str, BaselineCache] = field(default_factory=LastOnly, init=False)

    def measure_pair(self, case: Case) -> tuple[Measurement, Measurement]:
        """Measure a case in full precision and quantized.

        Raises:
            InputError: A model or an image cannot be used.
        """
        quantized = None
        if case.build.model not in self.models.plan.recordings:
            full = self.models.get(case.build.model)
            if full.store.is_locked(full.key):  # another process is at work on it: it comes last
                quantized = self._embed_quantized(case)
        baseline = self._measure_baseline(case)
        return baseline, self._measure(quantized or self._embed_quantized(case), case)

    def measure_model(
        self, handle: ModelHandle, case: Case, what: str, needs: Collection[Need] | None = None
    ) -> Measurement:
        """Measure another model on the benchmark of a case.

        Args:
            handle: The model.
            case: The case.
            what: What the model is, in words.
            needs: The optional parts to measure; None: those that the plan needs of the benchmark.

        Raises:
            InputError: The model or an image cannot be used.
        """
        return self._measure(self._embed(handle, case, what, needs), case)

    def _measure(self, embeddings: Embeddings, case: Case) -> Measurement:
        data = self.models.plan.data[case.benchmark]
        return measure(embeddings, data.classes, data.units)

    def _embed(self, handle: ModelHandle, case: Case, what: str, needs: Collection[Need] | None = None) -> Embeddings:
        data = self.models.plan.data[case.benchmark]
        needs = self.models.plan.needs(case.benchmark) if needs is None else needs
        description = f"{short_name(case.build.model)} {what} on {case.benchmark}"
        with self.progress(description, count_inputs(data, needs)) as advance:
            return self.embedder.embed(handle, data, advance, needs)

    def _embed_quantized(self, case: Case) -> Embeddings:
        if case.build.quantizer in self.models.plan.recordings:
            return self._recorded(case.build.quantizer, case)
        return self._embed(self.models.get(case.build), case, case.quantization)

    def _embed_baseline(self, case: Case) -> Embeddings:
        if case.build.model in self.models.plan.recordings:
            return self._recorded(case.build.model, case)
        return self._embed(self.models.get(case.build.model), case, "full precision")

    def _recorded(self, name: str, case: Case) -> Embeddings:
        plan = self.models.plan
        return recorded(plan.recordings[name], name, plan.data[case.benchmark], plan.needs(case.benchmark))

    def _measure_baseline(self, case: Case) -> Measurement:
        """Measure in full precision, with the logit scale refitted if that of the quantized model is."""
        model, benchmark = case.build.model, case.benchmark
        refitted = case.build.calibration if self.models.plan.recipes[case.build.quantizer].rescale else None
        held = self._baselines.get(model, BaselineCache)
        if (benchmark, refitted) not in held.measurements:
            if benchmark not in held.embeddings:
                held.embeddings[benchmark] = self._embed_baseline(case)
            embeddings = held.embeddings[benchmark]
            if refitted is not None:
                embeddings = replace(embeddings, logit_scale=self.facts.refitted_logit_scale(model, refitted))
            held.measurements[benchmark, refitted] = self._measure(embeddings, case)
        return held.measurements[benchmark, refitted]
