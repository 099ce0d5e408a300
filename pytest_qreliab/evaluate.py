"""The evaluator: from a case to its result. It alone decides which models are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pytest_qreliab import embedding, self_check, workers
from pytest_qreliab.cases import Build, Case
from pytest_qreliab.comparison import Change, compare
from pytest_qreliab.data.images import evenly
from pytest_qreliab.embedding import Advance, Embeddings
from pytest_qreliab.errors import InputError
from pytest_qreliab.explanation import Controls, explain, strength
from pytest_qreliab.gates import Verdict, judge
from pytest_qreliab.measurement import Measurement, measure
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.rank import residual_ratio
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.plan import Plan
from pytest_qreliab.quantizers import weights
from pytest_qreliab.quantizers.controls import Control, Kind
from pytest_qreliab.quantizers.coverage import Coverage
from pytest_qreliab.quantizers.coverage import measure as measure_coverage
from pytest_qreliab.quantizers.grid import Granularity
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.weights import WeightSpectrum
from pytest_qreliab.self_check import SelfCheck

# The seeds of each control; others than that of the quantizer `noise`, which may be a case like any other.
DRAWS: dict[Kind, tuple[int, ...]] = {"lowrank": (0,), "noise": (1, 2, 3)}
MATCHED_ON = 1000  # images, at most, on which the features of controls are matched

Progress = Callable[[str, int], AbstractContextManager[Advance]]
# Of a case: measurements in full precision and quantized, and the spectra of its weights, if they can be seen.
Draw = Callable[[Case, Measurement, Measurement, Sequence[WeightSpectrum]], None]


def silent(description: str, total: int) -> AbstractContextManager[Advance]:
    return nullcontext(lambda done: None)


@dataclass(frozen=True)
class Result:
    """A case, measured and judged: every metric's change, the verdict of every gate, the coverage, which of recorded
    outputs is not known.

    `rescaled` says that the logit scale was refitted, in the baseline as in the quantized model.
    """

    case: Case
    rescaled: bool
    changes: dict[str, Change]
    verdicts: tuple[Verdict, ...]
    coverage: Coverage | None
    samples: int
    device: str
    alpha: float
    controls: Controls | None

    def of(self, aspect: str | None) -> list[Verdict]:
        """The verdicts of one aspect, or all of them."""
        return [verdict for verdict in self.verdicts if aspect in (None, verdict.gate.aspect)]


@dataclass(frozen=True)
class QuantizedClip(Clip):
    """A quantized model and what part of it really is quantized."""

    coverage: Coverage = field(kw_only=True)


class Evaluator:
    """Results of a plan's cases, each computed once.

    At most one baseline and one quantized model are alive; asking in the plan's order builds each once.
    Results do not depend on that order.
    """

    def __init__(
        self, plan: Plan, progress: Progress = silent, checkpoints: Path | None = None, draw: Draw | None = None
    ) -> None:
        self._plan, self._progress, self._checkpoints, self._draw = plan, progress, checkpoints, draw
        self._baseline: Clip | None = None
        self._quantized: tuple[Build, QuantizedClip] | None = None
        self._embeddings: dict[tuple[str, str], Embeddings] = {}
        self._measurements: dict[tuple[str, str, str | None], Measurement] = {}
        self._weights: tuple[Build, list[WeightSpectrum]] | None = None
        self._results: dict[Case, Result] = {}
        self._self_checks: dict[Case, SelfCheck] = {}
        self._refused: dict[str | Build, InputError] = {}

    @property
    def device(self) -> torch.device:
        return resolve_device(self._plan.device)

    def baseline(self, model: str) -> Clip:
        """The full-precision model on the device. Raises InputError, the same again when asked again."""
        if self._baseline is None or self._baseline.name != model:
            with self._refused_once(model), self._progress(f"loading {_short(model)}", 1) as advance:
                self._quantized = self._baseline = None  # room first
                clip = self._plan.models[model]()
                clip.module.to(self.device)
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
        if case not in self._results:
            baseline, quantized = self._measurements_of(case)
            gates = self._plan.gates[case]
            wanted = {registry.canonical(gate.metric) for gate in gates}
            looks = any("weights" in registry.lookup(name).needs for name in wanted)
            of_weights = weights.metrics(self._weight_spectra(case.build)) if looks else ()
            changes = compare(baseline, quantized, wanted, *of_weights)
            if self._draw is not None:
                self._draw(case, baseline, quantized, self._dense_weights(case.build))
            verdicts = judge(
                changes, gates, baseline.samples, self._plan.alpha(case), self._plan.thresholds[case].policy
            )
            self._results[case] = Result(
                case,
                self._plan.recipes[case.build.quantizer].rescale,
                changes,
                tuple(verdicts),
                None if case.build.quantizer in self._plan.recordings else self.quantized(case.build).coverage,
                baseline.samples,
                str(self.device),
                self._plan.alpha(case),
                self._controls(case, baseline, quantized),
            )
        return self._results[case]

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
        baseline = self._baseline_measurement(case)
        if case.build.quantizer in self._plan.recordings:
            embeddings = self._recorded(case.build.quantizer, case)
        else:
            embeddings = self._embed(self.quantized(case.build), case, case.quantization)
        return baseline, measure(embeddings, self._plan.data[case.benchmark].classes)

    def _controls(self, case: Case, baseline: Measurement, quantized: Measurement) -> Controls | None:
        """What the case's matched controls show, if they are asked for."""
        how = self._plan.controls
        if how == "none":
            return None
        if case.build.quantizer in self._plan.recordings or case.build.model in self._plan.recordings:
            return Controls(how, {}, problem="recorded outputs have no weights")
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
            return Controls(how, {}, problem=problem)
        metrics = dict.fromkeys(registry.canonical(gate.metric) for gate in self._plan.gates[case])
        return Controls(how, residuals, tuple(explain(baseline, quantized, found, metrics, self._plan.alpha(case))))

    def _control(
        self, case: Case, kind: Kind, seed: int, part: str, baseline: Measurement, quantized: Measurement
    ) -> Measurement:
        """One control, measured. Raises InputError where it cannot be matched."""
        build, data = case.build, self._plan.data[case.benchmark]
        control = Control(self.baseline(build.model), self.quantized(build), build.scope, kind, seed)
        size = 1.0
        if self._plan.controls == "features":
            some = evenly(baseline.samples, MATCHED_ON)
            rows = np.arange(len(data.classes)) if part else some
            full = baseline.features[part][rows]

            def ratio(strength: float) -> float:
                clip = control.at(strength)
                if part:
                    return residual_ratio(full, embedding.class_features(clip, data))
                return residual_ratio(full, embedding.image_features(clip, data, images, advance))

            images = data.in_distribution.take(some)
            with self._progress(f"{_short(build.model)} {kind} matching {case.quantization}", len(images)) as advance:
                size = strength(ratio, residual_ratio(full, quantized.features[part][rows]))
        clip = control.at(size)
        if self._plan.recipes[build.quantizer].rescale and build.calibration is not None:
            of = self._plan.data[build.calibration]
            clip.set_logit_scale(embedding.fitted_logit_scale(embedding.prepared(clip, of), embedding.calibration(of)))
        return measure(self._embed(clip, case, f"{kind} control of {case.quantization}"), data.classes)

    def _weight_spectra(self, build: Build) -> list[WeightSpectrum]:
        """The spectra of the weights of both models. Raises InputError where the quantized ones cannot be seen."""
        if self._weights is None or self._weights[0] != build:
            quantized = self.quantized(build)
            with self._progress(f"{_short(build.model)} {build.quantizer} {build.bits} weights", 1) as advance:
                self._weights = build, weights.spectra(self.baseline(build.model), quantized, build.scope)
                advance(1)
        return self._weights[1]

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
        return embedding.recorded(self._plan.recordings[name], name, data, needs)

    def _build(self, full: Clip, build: Build) -> QuantizedClip:
        recipe = self._plan.recipes[build.quantizer]
        calibration = None
        if build.calibration is not None:
            full = embedding.prepared(full, self._plan.data[build.calibration])
            calibration = embedding.calibration(self._plan.data[build.calibration])
        total = recipe.steps or 1
        with (
            self._progress(f"quantizing {_short(build.model)} {build.quantizer} {build.bits}", total) as advance,
            embedding.full_precision(),
        ):
            request = Request(
                build.bits, build.scope, recipe.parameters, calibration, advance, recipe.matched, self._checkpoints
            )
            clip = recipe.apply()(full, request)
            if recipe.rescale and calibration is not None:
                clip.set_logit_scale(embedding.fitted_logit_scale(clip, calibration))
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
        return QuantizedClip(**vars(clip), coverage=coverage)

    def _baseline_measurement(self, case: Case) -> Measurement:
        """The full-precision measurement; with its logit scale refitted, if that of the quantized model is."""
        model, benchmark = case.build.model, case.benchmark
        refitted = case.build.calibration if self._plan.recipes[case.build.quantizer].rescale else None
        key = model, benchmark, refitted
        if key not in self._measurements:
            if key[:2] not in self._embeddings:
                self._embeddings[key[:2]] = (
                    self._recorded(model, case)
                    if model in self._plan.recordings
                    else self._embed(self.baseline(model), case, "full precision")
                )
            embeddings = self._embeddings[key[:2]]
            if refitted is not None:
                calibration = embedding.calibration(self._plan.data[refitted])
                clip = embedding.prepared(self.baseline(model), self._plan.data[refitted])
                scale = embedding.fitted_logit_scale(clip, calibration)
                embeddings = replace(embeddings, logit_scale=scale)
            self._measurements[key] = measure(embeddings, self._plan.data[benchmark].classes)
        return self._measurements[key]

    def _embed(self, clip: Clip, case: Case, what: str) -> Embeddings:
        data = self._plan.data[case.benchmark]
        needs = self._plan.needs(case.benchmark)
        work = embedding.work(data, needs)
        with self._progress(f"{_short(clip.name)} {what} on {case.benchmark}", work) as advance:
            return embedding.embed(clip, data, advance, needs)

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


def resolve_device(text: str) -> torch.device:
    """The device of a setting; `auto` is a GPU where there is one."""
    if text == "cuda" or (text == "auto" and torch.cuda.is_available()):
        return workers.cuda()
    if text != "auto":
        return torch.device(text)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
