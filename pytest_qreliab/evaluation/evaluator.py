"""The evaluator: from a case to its result. It alone decides which models are in memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.data.sampling import evenly_spaced
from pytest_qreliab.embedding import embedder, keys, recorded
from pytest_qreliab.embedding.embedder import Embedder
from pytest_qreliab.embedding.forward import Advance, full_precision
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.records import Embeddings
from pytest_qreliab.embedding.store import Arrays, Store
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation import provenance
from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measure import measure
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.model_cache import ModelCache
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.evaluation.result import Cost, Outline, Result
from pytest_qreliab.evaluation.verdicts import self_check
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedResults
from pytest_qreliab.evaluation.verdicts.controls import ControlFindings, explain, match_strength
from pytest_qreliab.evaluation.verdicts.gates import judge, judge_drift
from pytest_qreliab.evaluation.verdicts.self_check import SelfCheck
from pytest_qreliab.hashing import digest
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.rank import residual_ratio
from pytest_qreliab.models.block_hooks import compile_blocks
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.devices import peak_memory, resolve_device
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.controls import Control, Kind
from pytest_qreliab.quantizers.engine.grid import Granularity
from pytest_qreliab.quantizers.inspection import weight_spectra
from pytest_qreliab.quantizers.inspection.coverage import Coverage
from pytest_qreliab.quantizers.inspection.coverage import measure as measure_coverage
from pytest_qreliab.quantizers.inspection.weight_spectra import WeightSpectrum
from pytest_qreliab.quantizers.request import Request, Tensors, no_cache

# The seeds of each control; others than that of the quantizer `noise`, which may be a case like any other.
DRAWS: dict[Kind, tuple[int, ...]] = {"lowrank": (0,), "noise": (1, 2, 3)}
MATCHED_ON = 1000  # images, at most, on which the features of controls are matched

Progress = Callable[[str, int], AbstractContextManager[Advance]]
# Of a case: measurements in full precision and quantized, and the spectra of its weights, if they can be seen.
Draw = Callable[[Case, Measurement, Measurement, Sequence[WeightSpectrum]], None]


def silent(description: str, total: int) -> AbstractContextManager[Advance]:
    return nullcontext(lambda done: None)


@dataclass(frozen=True)
class QuantizedClip(Clip):
    """A quantized model and what part of it really is quantized."""

    coverage: Coverage = field(kw_only=True)


@dataclass
class BaselineCache:
    """What is known of the full-precision model that is at work: by benchmark, and by that of the images that its logit
    scale is refitted on, if it is."""

    embeddings: dict[str, Embeddings] = field(default_factory=dict)
    measurements: dict[tuple[str, str | None], Measurement] = field(default_factory=dict)


class Evaluator:
    """Results of a plan's cases, from what the store knows of their models, and where it does not, from the models.

    At most one baseline and one quantized model are alive, and the measurements of one model; asking in the plan's
    order builds each once. Results do not depend on that order. Without a store nothing outlives the run.
    """

    def __init__(
        self,
        plan: Plan,
        progress: Progress = silent,
        store: Store | None = None,
        draw: Draw | None = None,
        curves: Callable[[Measurement, Measurement], Outline] | None = None,
        accepted: AcceptedResults | None = None,
    ) -> None:
        self._accepted = accepted
        self._plan, self._progress, self._draw, self._curves = plan, progress, draw, curves
        self._store = store or self._passing
        self._checkpoints = None if store is None else store.training
        self._baseline: Clip | None = None
        self._quantized: tuple[Build, QuantizedClip] | None = None
        self._calibrations: dict[str, Calibration] = {}
        self._of_model = "", BaselineCache()
        self._last_observed: tuple[str, Tensors] = "", {}
        self._results: tuple[Build | None, dict[str, Result]] = None, {}
        self._self_checks: dict[Case, SelfCheck] = {}
        self._refused: dict[str | Build, InputError] = {}

    @cached_property
    def device(self) -> torch.device:
        return resolve_device(self._plan.device)

    @cached_property
    def _passing(self) -> Store:
        """A store that goes with the evaluator."""
        folder = mkdtemp(prefix="qreliab-")
        weakref.finalize(self, rmtree, folder, ignore_errors=True)
        return Store(Path(folder))

    @cached_property
    def embedder(self) -> Embedder:
        return Embedder(Reader(self._store, keys.code_key()))

    @cached_property
    def _environment(self) -> str:
        return digest(keys.environment_key(self.device), "compiled" if self._plan.compiled else "")

    @cached_property
    def model_cache(self) -> ModelCache:
        return ModelCache(
            self._plan,
            self._store,
            self._passing,
            self.embedder.reader,
            self._environment,
            self.baseline,
            self.quantized,
        )

    def baseline(self, model: str) -> Clip:
        """The full-precision model on the device. Raises InputError, the same again when asked again."""
        if self._baseline is None or self._baseline.name != model:
            with self._refused_once(model), self._progress(f"loading {_short(model)}", 1) as advance:
                self._quantized = self._baseline = None  # room first
                clip = self._plan.models[model]()
                clip.module.to(self.device)
                if self._plan.compiled:
                    compile_blocks(clip)
                advance(1)
            self._baseline = clip
        return self._baseline

    def quantized(self, build: Build) -> QuantizedClip:
        """The quantized model on the device. Raises InputError when it covers less than it declares."""
        if build.quantizer in self._plan.recordings:
            raise InputError(f"{build.quantizer} holds outputs: there is no quantized model")
        if self._quantized is None or self._quantized[0] != build:
            full = self.baseline(build.model)
            with self._refused_once(build):
                self._quantized = None
                self._quantized = build, self._build(full, build)
        return self._quantized[1]

    def result(self, case: Case) -> Result:
        """The case measured on both models and judged. Raises InputError for input that cannot be used."""
        if self._results[0] != case.build:  # what results hold is as large as their samples
            self._results = case.build, {}
        results = self._results[1]
        if case.benchmark not in results:
            before = self.embedder.encoded, self.embedder.known
            baseline, quantized = self._measurements_of(case)
            wanted = {registry.canonical(gate.metric) for gate in self._plan.all_gates(case)}
            looks = any("weights" in registry.lookup(name).needs for name in wanted)
            of_weights = weight_spectra.metrics(self._weight_spectra(case.build)) if looks else ()
            changes = compare(baseline, quantized, wanted, *of_weights)
            if self._draw is not None:
                self._draw(case, baseline, quantized, self._dense_weights(case.build))
            policy = self._plan.thresholds[case].policy
            verdicts = judge(changes, self._plan.gates[case], baseline.samples, self._plan.alpha(case), policy)
            controls = self._controls(case, baseline, quantized)
            data, environment, warnings = self._described(case)
            if self._accepted is not None:
                accepted = self._accepted.accepted(case, data)
                verdicts += judge_drift(changes, self._plan.drift[case], accepted)
            results[case.benchmark] = Result(
                case,
                self._plan.recipes[case.build.quantizer].rescale,
                changes,
                tuple(verdicts),
                self._coverage(case.build),
                baseline.samples,
                str(self.device),
                self._plan.alpha(case),
                controls,
                Cost(
                    self.embedder.encoded - before[0],
                    self.embedder.known - before[1],
                    peak_memory(),
                    torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0,
                ),
                data,
                environment,
                None if self._curves is None else self._curves(baseline, quantized),
                tuple(warnings),
            )
        return results[case.benchmark]

    def _described(self, case: Case) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """The data and the environment of a case in words, if they are asked for, and what of them was another when the
        case was accepted."""
        if self._accepted is None and not self._plan.records_curves:
            return {}, {}, []
        data = provenance.describe_data(self._plan.data[case.benchmark], self.embedder.reader.manifest)
        environment = provenance.describe_environment(self.device)
        differences = [] if self._accepted is None else self._accepted.differences(case, data, environment)
        return data, environment, differences

    def self_check(self, case: Case) -> SelfCheck:
        """The case's gates tried where there is no difference. Raises InputError for input that cannot be used."""
        if case not in self._self_checks:
            pair = self._measurements_of(case)
            description = f"{_short(case.build.model)} {case.quantization} self-check on {case.benchmark}"
            with self._progress(description, self_check.REPLICATES) as advance:
                self._self_checks[case] = self_check.check(
                    case,
                    *pair,
                    self._plan.gates[case],
                    self._plan.alpha(case),
                    self._plan.thresholds[case].policy,
                    str(self.device),
                    advance,
                )
        return self._self_checks[case]

    def _measurements_of(self, case: Case) -> tuple[Measurement, Measurement]:
        """The case in full precision and quantized."""
        found = None
        if case.build.model not in self._plan.recordings:
            full = self.model_cache.get(case.build.model)
            if full.store.is_locked(full.key):  # another process is at work on it: it comes last
                found = self._embeddings(case)
        baseline = self._baseline_measurement(case)
        return baseline, measure(found or self._embeddings(case), self._plan.data[case.benchmark].classes)

    def _embeddings(self, case: Case) -> Embeddings:
        """Of the case's quantized model."""
        if case.build.quantizer in self._plan.recordings:
            return self._recorded(case.build.quantizer, case)
        return self._embed(self.model_cache.get(case.build), case, case.quantization)

    def _coverage(self, build: Build) -> Coverage | None:
        """What the quantized model covers; None for recorded outputs."""
        if build.quantizer in self._plan.recordings:
            return None
        subject = self.model_cache.get(build)

        def make() -> tuple[Arrays, dict[str, Any]]:
            return {}, vars(self.quantized(build).coverage)

        facts = subject.store.get_or_make(digest("coverage", subject.key), f"coverage of {subject.name}", make).facts
        return Coverage(**{**facts, "missing": tuple(facts["missing"])})

    def _observed(self, build: Build, name: str, make: Callable[[], Tensors]) -> Tensors:
        """What was, or is now, observed of the full-precision model on the calibration data of the build."""
        subject, data = self.model_cache.get(build.model), self._plan.data[build.calibration or ""]
        key = digest("observed", subject.key, self.model_cache.key_of_calibration(data), name)

        def observe() -> tuple[Arrays, dict[str, Any]]:
            return {of: tensor.cpu().numpy() for of, tensor in make().items()}, {}

        if self._last_observed[0] != key:
            with subject.store.lock(key):
                arrays = subject.store.get_or_make(key, f"{name}, {subject.name}", observe).arrays
            self._last_observed = key, {of: torch.from_numpy(array).to(self.device) for of, array in arrays.items()}
        return self._last_observed[1]

    def _calibration(self, benchmark: str) -> Calibration:
        if benchmark not in self._calibrations:
            self._calibrations[benchmark] = self.embedder.calibration(self._plan.data[benchmark])
        return self._calibrations[benchmark]

    # Controls

    def _controls(self, case: Case, baseline: Measurement, quantized: Measurement) -> ControlFindings | None:
        """What the case's matched controls show, if they are asked for."""
        how = self._plan.controls
        if how == "none":
            return None
        if case.build.quantizer in self._plan.recordings or case.build.model in self._plan.recordings:
            return ControlFindings(how, {}, problem="recorded outputs have no weights")
        part = "" if case.build.scope != "text" else "text"
        try:
            residuals = {case.quantization: residual_ratio(baseline.features[part], quantized.features[part])}
            found: dict[Kind, list[Measurement]] = {}
            for kind, seeds in DRAWS.items():
                found[kind] = [self._control(case, kind, seed, part, baseline, quantized) for seed in seeds]
                ratios = [residual_ratio(baseline.features[part], m.features[part]) for m in found[kind]]
                residuals[kind] = float(np.mean(ratios))
        except (InputError, KeyError) as error:  # no features where they are not finite
            problem = str(error) if isinstance(error, InputError) else "the features are not finite, or all the same"
            return ControlFindings(how, {}, problem=problem)
        metrics = dict.fromkeys(registry.canonical(gate.metric) for gate in self._plan.gates[case])
        return ControlFindings(
            how, residuals, tuple(explain(baseline, quantized, found, metrics, self._plan.alpha(case)))
        )

    def _control(
        self, case: Case, kind: Kind, seed: int, part: str, baseline: Measurement, quantized: Measurement
    ) -> Measurement:
        """One control, measured. Raises InputError where it cannot be matched."""
        build, data, how = case.build, self._plan.data[case.benchmark], self._plan.controls
        of = self.model_cache.get(build)
        matched_on = self.embedder.reader.manifest(data.in_distribution) if how == "features" else None
        key = digest("control", of.key, kind, seed, how, matched_on, data.classes, data.templates)

        def make() -> Clip:
            control = Control(self.baseline(build.model), self.quantized(build), build.scope, kind, seed)
            size = 1.0
            if how == "features":
                size = self._strength(case, kind, control, part, baseline, quantized)
            clip = control.at(size)
            if self._plan.recipes[build.quantizer].rescale and build.calibration is not None:
                clip.set_logit_scale(self.embedder.fitted_logit_scale(clip, self._plan.data[build.calibration]))
            return clip

        subject = ModelHandle(f"{kind} control of {of.name}", key, of.store, cache(make), of.full)
        return measure(self._embed(subject, case, f"{kind} control of {case.quantization}"), data.classes)

    def _strength(
        self, case: Case, kind: Kind, control: Control, part: str, baseline: Measurement, quantized: Measurement
    ) -> float:
        """How much of a control gives the features the error of the quantized ones."""
        data = self._plan.data[case.benchmark]
        some = evenly_spaced(baseline.samples, MATCHED_ON)
        rows = np.arange(len(data.classes)) if part else some
        full = baseline.features[part][rows]

        def ratio(strength: float) -> float:
            clip = control.at(strength)
            if part:
                return residual_ratio(full, self.embedder.class_features(clip, data))
            return residual_ratio(full, self.embedder.image_features(clip, data, images, advance))

        images = data.in_distribution.take(some)
        description = f"{_short(case.build.model)} {kind} matching {case.quantization}"
        with self._progress(description, len(images)) as advance:
            return match_strength(ratio, residual_ratio(full, quantized.features[part][rows]))

    def _weight_spectra(self, build: Build) -> list[WeightSpectrum]:
        """The spectra of the weights of both models. Raises InputError where the quantized ones cannot be seen."""
        subject = self.model_cache.get(build)

        def make() -> tuple[Arrays, dict[str, Any]]:
            quantized = self.quantized(build)
            with self._progress(f"{_short(build.model)} {build.quantizer} {build.bits} weights", 1) as advance:
                spectra = weight_spectra.spectra(self.baseline(build.model), quantized, build.scope)
                advance(1)
            arrays = {
                f"{of.name} {what}": array
                for of in spectra
                for what, array in (("full", of.singular_values), ("quantized", of.quantized), ("error", of.error))
            }
            return arrays, {"names": [of.name for of in spectra]}

        found = subject.store.get_or_make(
            digest("weights", subject.key), f"spectra of the weights, {subject.name}", make
        )
        return [
            WeightSpectrum(name, *(found.arrays[f"{name} {what}"] for what in ("full", "quantized", "error")))
            for name in found.facts["names"]
        ]

    def _dense_weights(self, build: Build) -> list[WeightSpectrum]:
        """The same, or none where they cannot be seen."""
        if build.quantizer in self._plan.recordings:
            return []
        try:
            return self._weight_spectra(build)
        except InputError:
            return []

    def _recorded(self, name: str, case: Case) -> Embeddings:
        data, needs = self._plan.data[case.benchmark], self._plan.needs(case.benchmark)
        return recorded.recorded(self._plan.recordings[name], name, data, needs)

    def _build(self, full: Clip, build: Build) -> QuantizedClip:
        recipe = self._plan.recipes[build.quantizer]
        calibration = None
        if build.calibration is not None:
            full = embedder.with_preprocessing(full, self._plan.data[build.calibration])
            calibration = self._calibration(build.calibration)
        total = recipe.steps or 1
        with (
            self._progress(f"quantizing {_short(build.model)} {build.quantizer} {build.bits}", total) as advance,
            full_precision(),
        ):
            request = Request(
                build.bits,
                build.scope,
                recipe.parameters,
                calibration,
                advance,
                checkpoints=self._checkpoints,
                # Another's code may observe a model that it has changed first.
                cached=partial(self._observed, build) if recipe.quantizer.ours and build.calibration else no_cache,
            )
            clip = recipe.quantize(full, request)
            if recipe.rescale and build.calibration is not None:
                clip.set_logit_scale(self.embedder.fitted_logit_scale(clip, self._plan.data[build.calibration]))
            granularity: Granularity = getattr(recipe.parameters, "granularity", "channel")
            bits = build.bits if recipe.quantizer.rounds else None
            coverage = measure_coverage(full, clip, bits, build.scope, granularity)
            advance(total if recipe.steps == 0 else 0)
        mend = ""
        if full.layout is not OPEN_CLIP:
            mend = "; if that is as it should be, tell Clip.wrap what share can be reached, as in coverage=0.9"
        declared = recipe.quantizer.coverage * full.layout.coverage
        coverage.require(
            declared,
            f"{build.quantizer} {build.bits} on {build.model}",
            convolutions=recipe.quantizer.convolutions,
            mend=mend,
        )
        if self._plan.compiled:
            compile_blocks(clip)
        return QuantizedClip(**vars(clip), coverage=coverage)

    def _baseline_measurement(self, case: Case) -> Measurement:
        """The full-precision measurement; with its logit scale refitted, if that of the quantized model is."""
        model, benchmark = case.build.model, case.benchmark
        refitted = case.build.calibration if self._plan.recipes[case.build.quantizer].rescale else None
        if self._of_model[0] != model:
            self._of_model = model, BaselineCache()
        known = self._of_model[1]
        if (benchmark, refitted) not in known.measurements:
            if benchmark not in known.embeddings:
                known.embeddings[benchmark] = (
                    self._recorded(model, case)
                    if model in self._plan.recordings
                    else self._embed(self.model_cache.get(model), case, "full precision")
                )
            embeddings = known.embeddings[benchmark]
            if refitted is not None:
                embeddings = replace(embeddings, logit_scale=self._refitted_logit_scale(model, refitted))
            known.measurements[benchmark, refitted] = measure(embeddings, self._plan.data[benchmark].classes)
        return known.measurements[benchmark, refitted]

    def _refitted_logit_scale(self, model: str, benchmark: str) -> float:
        """The logit scale of the full-precision model that fits the held-out calibration images best."""
        subject, data = self.model_cache.get(model), self._plan.data[benchmark]
        key = digest("refitted", subject.key, self.model_cache.key_of_calibration(data))

        def make() -> tuple[Arrays, dict[str, Any]]:
            return {}, {"logit_scale": self.embedder.fitted_logit_scale(self.baseline(model), data)}

        return float(subject.store.get_or_make(key, f"refitted logit scale of {model}", make).facts["logit_scale"])

    def _embed(self, subject: ModelHandle, case: Case, what: str) -> Embeddings:
        data = self._plan.data[case.benchmark]
        needs = self._plan.needs(case.benchmark)
        work = embedder.count_inputs(data, needs)
        with self._progress(f"{_short(case.build.model)} {what} on {case.benchmark}", work) as advance:
            return self.embedder.embed(subject, data, advance, needs)

    @contextmanager
    def _refused_once(self, key: str | Build) -> Iterator[None]:
        """Work on a model or a build that, if its input is refused, is not tried again: the error is the same."""
        if key in self._refused:
            raise self._refused[key]
        try:
            yield
        except InputError as error:
            self._refused[key] = error
            raise


def _short(model: str) -> str:
    """The last part of a model's name, which may be a path."""
    return model.rstrip("/").rpartition("/")[2]
