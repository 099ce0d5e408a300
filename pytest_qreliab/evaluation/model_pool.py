"""The models in memory: at most one in full precision and one quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_qreliab.config.cases import Build
from pytest_qreliab.embedding.forward import Advance, full_precision
from pytest_qreliab.embedding.preprocess_override import with_preprocessing
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.unstored import fitted_logit_scale, split_calibration
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.last_only import LastOnly
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.evaluation.progress import Progress, short_name
from pytest_qreliab.models.block_hooks import compile_blocks
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.devices import resolve_device
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.quantizers.calibration import Calibration
from pytest_qreliab.quantizers.engine.layers import find_own_formats
from pytest_qreliab.quantizers.inspection.coverage import Coverage
from pytest_qreliab.quantizers.inspection.coverage import measure as measure_coverage
from pytest_qreliab.quantizers.recipe import Recipe
from pytest_qreliab.quantizers.request import Request, Tensors, no_cache

# From a build and a name to the tensors that are observed for it, which the function makes if they are not kept.
Observe = Callable[[Build, str, Callable[[], Tensors]], Tensors]


@dataclass(frozen=True)
class QuantizedClip:
    """A quantized model, with every attribute of its `clip`, and the share of it that really is quantized."""

    clip: Clip
    coverage: Coverage

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the model."""
        if name in ("clip", "coverage") or name.startswith("__"):  # `copy` and `pickle` ask before there is a model
            raise AttributeError(name)
        return getattr(self.clip, name)


class ModelPool:
    """The models of a plan that are in memory: at most one baseline, and one model that was quantized from it.

    Another takes their place, for which room is made first. Asking in the plan's order makes each model once. A model
    whose input is refused is not tried again: the same error is raised.
    """

    def __init__(
        self, plan: Plan, reader: Reader, progress: Progress, *, checkpoints: Path | None, observe: Observe
    ) -> None:
        self.device = resolve_device(plan.device)
        self._plan, self._reader, self._progress = plan, reader, progress
        self._checkpoints = checkpoints  # the folder for training that is not finished
        self._observe = observe
        self._baseline: LastOnly[str, Clip] = LastOnly()
        self._quantized: LastOnly[Build, QuantizedClip] = LastOnly()
        self._calibrations: dict[str, Calibration] = {}
        self._refused: dict[str | Build, InputError] = {}

    def baseline(self, model: str) -> Clip:
        """Return the full-precision model, on the device.

        Raises:
            InputError: The model cannot be loaded.
        """
        with self._refused_once(model):
            return self._baseline.get(model, partial(self._load, model))

    def quantized(self, build: Build) -> QuantizedClip:
        """Return the quantized model, on the device.

        Raises:
            InputError: The model cannot be loaded or quantized, or it covers less than its quantizer declares.
        """
        if build.quantizer in self._plan.recordings:
            raise InputError(f"{build.quantizer} holds outputs: there is no quantized model")
        full = self.baseline(build.model)
        with self._refused_once(build):
            return self._quantized.get(build, partial(self._build, full, build))

    def rebuilt(self, build: Build) -> Clip:
        """Return the quantized model made anew, from nothing that was observed before.

        The new one is not kept, and the one that is in memory stays.

        Raises:
            InputError: The model cannot be loaded or quantized.
        """
        return self._build(self.baseline(build.model), build, anew=True).clip

    def refit_logit_scale(self, clip: Clip, build: Build) -> None:
        """Refit the logit scale of a model that is made for a build, in place, if the build's recipe asks for it.

        Raises:
            InputError: The features hold NaN or infinity.
        """
        if self._plan.recipes[build.quantizer].rescale and build.calibration is not None:
            clip.set_logit_scale(fitted_logit_scale(self._reader, clip, self._plan.data[build.calibration]))

    def _load(self, model: str) -> Clip:
        self._quantized.clear()  # room first; the baseline before it is gone
        with self._progress(f"loading {short_name(model)}", 1) as advance:
            clip = self._plan.models[model]()
            clip.module.to(self.device)
            if self._plan.compiled:
                compile_blocks(clip)
            advance(1)
        return clip

    def _build(self, full: Clip, build: Build, *, anew: bool = False) -> QuantizedClip:
        recipe = self._plan.recipes[build.quantizer]
        calibration, own = None, full.preprocess
        if build.calibration is not None:
            full = with_preprocessing(full, self._plan.data[build.calibration])
            calibration = self._calibration(build.calibration)
        total = recipe.steps or 1
        with (
            self._progress(f"quantizing {short_name(build.model)} {build.quantizer} {build.bits}", total) as advance,
            full_precision(),
        ):
            request = self._request(build, recipe, calibration, advance)
            request = replace(request, cached=no_cache) if anew else request
            clip = recipe.quantize(full, request)
            self.refit_logit_scale(clip, build)
            if clip.preprocess is full.preprocess:  # that of the benchmark, which is asked for again where it is read
                clip = replace(clip, preprocess=own)
            coverage = measure_coverage(
                full,
                clip,
                build.bits if recipe.quantizer.rounds else None,
                build.scope,
                getattr(recipe.parameters, "granularity", "channel"),
                find_own_formats(full, request),
            )
            advance(total if recipe.steps == 0 else 0)
        _require_coverage(coverage, full, build, recipe)
        if self._plan.compiled:
            compile_blocks(clip)
        return QuantizedClip(clip, coverage)

    def _request(self, build: Build, recipe: Recipe, calibration: Calibration | None, advance: Advance) -> Request:
        return Request(
            bits=build.bits,
            scope=build.scope,
            parameters=recipe.parameters,
            calibration=calibration,
            advance=advance,
            checkpoints=self._checkpoints,
            # Another's code may observe a model that it has changed first.
            cached=partial(self._observe, build) if recipe.quantizer.ours and build.calibration else no_cache,
        )

    def _calibration(self, benchmark: str) -> Calibration:
        if benchmark not in self._calibrations:  # the same images each time, whose contents the reader remembers
            self._calibrations[benchmark] = split_calibration(self._reader, self._plan.data[benchmark])
        return self._calibrations[benchmark]

    @contextmanager
    def _refused_once(self, key: str | Build) -> Iterator[None]:
        """Raise the error of a model or build that was refused before; remember that of one that is refused now."""
        if key in self._refused:
            raise self._refused[key]
        try:
            yield
        except InputError as error:
            self._refused[key] = error
            raise


def _require_coverage(coverage: Coverage, full: Clip, build: Build, recipe: Recipe) -> None:
    """Raise InputError if a model covers less than its quantizer declares."""
    mend = ""
    if full.layout is not OPEN_CLIP:
        mend = "; if that is as it should be, tell Clip.wrap what share can be reached, as in coverage=0.9"
    coverage.require(
        recipe.quantizer.coverage * full.layout.coverage,
        f"{build.quantizer} {build.bits} on {build.model}",
        convolutions=recipe.quantizer.convolutions,
        mend=mend,
    )
