"""Controls of a case: models that err as much as its quantized model, but not by rounding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from pytest_qreliab.config.cases import Case, ControlKind
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.sampling import evenly_spaced
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.unstored import class_features, image_features
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.case_measurer import CaseMeasurer
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.model_cache import ModelCache
from pytest_qreliab.evaluation.progress import Progress, short_name
from pytest_qreliab.evaluation.verdicts.controls import ControlFindings, explain, match_strength
from pytest_qreliab.hashing import digest
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.rank import residual_ratio
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.controls import Control

# The seeds of each control; others than that of the quantizer `noise`, which may be a case like any other.
DRAWS: dict[ControlKind, tuple[int, ...]] = {"lowrank": (0,), "noise": (1, 2, 3)}
MATCHED_ON = 1000  # images, at most, on which the features of controls are matched


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A case whose quantized model is to be matched."""

    case: Case
    data: Dataset
    part: str  # the features that are compared: of the images (""), or of the `text` if that tower alone is quantized
    baseline: Measurement
    quantized: Measurement

    def residual(self, other: Measurement) -> float:
        """Return the residual-to-signal ratio of the features of another model."""
        return residual_ratio(self.baseline.features[self.part], other.features[self.part])


@dataclass(frozen=True, kw_only=True)
class MatchedControls:
    """The controls of a plan's cases."""

    models: ModelCache
    measurer: CaseMeasurer
    progress: Progress

    def findings(self, case: Case, baseline: Measurement, quantized: Measurement) -> ControlFindings | None:
        """Return what the controls of a case show, or None if they are not asked for."""
        plan = self.models.plan
        if plan.controls == "none":
            return None
        if case.build.quantizer in plan.recordings or case.build.model in plan.recordings:
            return ControlFindings(matched=plan.controls, residuals={}, problem="recorded outputs have no weights")
        target = _Target(
            case=case,
            data=plan.data[case.benchmark],
            part="text" if case.build.scope == "text" else "",
            baseline=baseline,
            quantized=quantized,
        )
        try:
            residuals = {case.quantization: target.residual(quantized)}
            controls: dict[ControlKind, list[Measurement]] = {}
            for kind, seeds in DRAWS.items():
                controls[kind] = [self._measure(target, kind, seed) for seed in seeds]
                residuals[kind] = float(np.mean([target.residual(control) for control in controls[kind]]))
        except (InputError, KeyError) as error:  # no features if they are not finite
            problem = str(error) if isinstance(error, InputError) else "the features are not finite, or all the same"
            return ControlFindings(matched=plan.controls, residuals={}, problem=problem)
        metrics = dict.fromkeys(registry.canonical(gate.metric) for gate in plan.gates[case])
        explanations = tuple(explain(baseline, quantized, controls, metrics, plan.error_probability(case)))
        return ControlFindings(matched=plan.controls, residuals=residuals, explanations=explanations)

    def _measure(self, target: _Target, kind: ControlKind, seed: int) -> Measurement:
        """Measure one control. Raises InputError if it cannot be matched."""
        case, data, how = target.case, target.data, self.models.plan.controls
        handle = self.models.get(case.build)
        matched_on = self.models.reader.manifest(data.in_distribution) if how == "features" else None
        control = ModelHandle(
            name=f"{kind} control of {handle.name}",
            key=digest("control", handle.key, kind, seed, how, matched_on, data.classes, data.templates),
            store=handle.store,
            make=cache(lambda: self._make(target, kind, seed)),
            full=handle.full,
        )
        return self.measurer.measure_model(control, case, f"{kind} control of {case.quantization}")

    def _make(self, target: _Target, kind: ControlKind, seed: int) -> Clip:
        build, models = target.case.build, self.models
        full, quantized = models.pool.baseline(build.model), models.pool.quantized(build).clip
        control = Control(full, quantized, build.scope, kind=kind, seed=seed)
        clip = control.at(self._strength(target, kind, control) if models.plan.controls == "features" else 1.0)
        models.pool.refit_logit_scale(clip, build)
        return clip

    def _strength(self, target: _Target, kind: ControlKind, control: Control) -> float:
        """Return the strength at which the control's features err as much as the quantized ones."""
        case, data, part = target.case, target.data, target.part
        sampled = evenly_spaced(target.baseline.samples, MATCHED_ON)
        images = data.in_distribution.take(sampled)
        rows = np.arange(len(data.classes)) if part else sampled
        full, quantized = (side.features[part][rows] for side in (target.baseline, target.quantized))

        def features(clip: Clip) -> npt.NDArray[np.float32]:
            if part:
                return class_features(clip, data)
            return image_features(self.models.reader, clip, data, images, advance)

        description = f"{short_name(case.build.model)} {kind} matching {case.quantization}"
        with self.progress(description, len(images)) as advance:
            return match_strength(
                lambda strength: residual_ratio(full, features(control.at(strength))), residual_ratio(full, quantized)
            )
