"""Facts that are computed once per model and kept in its store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pytest_qreliab.config.cases import Build
from pytest_qreliab.embedding.entry_files import Arrays
from pytest_qreliab.embedding.unstored import fitted_logit_scale
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.last_only import LastOnly
from pytest_qreliab.evaluation.model_cache import ModelCache
from pytest_qreliab.evaluation.progress import Progress, short_name
from pytest_qreliab.hashing import digest
from pytest_qreliab.quantizers.inspection import weight_spectra
from pytest_qreliab.quantizers.inspection.coverage import Coverage
from pytest_qreliab.quantizers.inspection.weight_spectra import WeightSpectrum
from pytest_qreliab.quantizers.request import Tensors


@dataclass(kw_only=True)
class CachedFacts:
    """The facts of a plan's models besides their embeddings. A model is made only for a fact that is not kept."""

    models: ModelCache
    progress: Progress
    _observed: LastOnly[str, Tensors] = field(default_factory=LastOnly, init=False)

    def coverage(self, build: Build) -> Coverage | None:
        """Return the share of the model that is quantized, or None for recorded outputs.

        Raises:
            InputError: The model cannot be quantized.
        """
        if build.quantizer in self.models.plan.recordings:
            return None
        handle = self.models.get(build)

        def make() -> tuple[Arrays, dict[str, Any]]:
            return {}, asdict(self.models.pool.quantized(build).coverage)

        facts = handle.store.get_or_make(digest("coverage", handle.key), f"coverage of {handle.name}", make).facts
        return Coverage(**{**facts, "missing": tuple(facts["missing"])})

    def weight_spectra(self, build: Build) -> list[WeightSpectrum]:
        """Return the spectra of the weights, in full precision and quantized.

        Raises:
            InputError: The quantized weights cannot be seen.
        """
        handle = self.models.get(build)

        def make() -> tuple[Arrays, dict[str, Any]]:
            pool = self.models.pool
            quantized = pool.quantized(build).clip
            with self.progress(f"{short_name(build.model)} {build.quantizer} {build.bits} weights", 1) as advance:
                spectra = weight_spectra.spectra(pool.baseline(build.model), quantized, build.scope)
                advance(1)
            arrays: dict[str, Any] = {}
            for spectrum in spectra:
                arrays[f"{spectrum.name} full"] = spectrum.singular_values
                arrays[f"{spectrum.name} quantized"] = spectrum.quantized
                arrays[f"{spectrum.name} error"] = spectrum.error
            return arrays, {"names": [spectrum.name for spectrum in spectra]}

        key = digest("weights", handle.key)
        entry = handle.store.get_or_make(key, f"spectra of the weights, {handle.name}", make)
        return [
            WeightSpectrum(
                name=name,
                singular_values=entry.arrays[f"{name} full"],
                quantized=entry.arrays[f"{name} quantized"],
                error=entry.arrays[f"{name} error"],
            )
            for name in entry.facts["names"]
        ]

    def visible_weight_spectra(self, build: Build) -> list[WeightSpectrum]:
        """Return the spectra of the weights, or none if they cannot be seen."""
        if build.quantizer in self.models.plan.recordings:
            return []
        try:
            return self.weight_spectra(build)
        except InputError:
            return []

    def refitted_logit_scale(self, model: str, benchmark: str) -> float:
        """Return the logit scale of the full-precision model that fits the held-out calibration images best.

        Raises:
            InputError: The features hold NaN or infinity.
        """
        handle, data = self.models.get(model), self.models.plan.data[benchmark]
        key = digest("refitted", handle.key, self.models.calibration_key(data))

        def make() -> tuple[Arrays, dict[str, Any]]:
            clip = self.models.pool.baseline(model)
            return {}, {"logit_scale": fitted_logit_scale(self.models.reader, clip, data)}

        return float(handle.store.get_or_make(key, f"refitted logit scale of {model}", make).facts["logit_scale"])

    def observed(self, build: Build, name: str, make: Callable[[], Tensors]) -> Tensors:
        """Return what is observed of the full-precision model on the calibration data of a build.

        Args:
            build: The build, whose bits and quantizer do not matter.
            name: What is observed.
            make: Observes it, if it is not kept. Tensors on any device.

        Returns:
            The tensors by name, on the device.
        """
        handle, data = self.models.get(build.model), self.models.plan.data[build.calibration or ""]
        key = digest("observed", handle.key, self.models.calibration_key(data), name)

        def observe() -> tuple[Arrays, dict[str, Any]]:
            return {name: tensor.cpu().numpy() for name, tensor in make().items()}, {}

        def load() -> Tensors:
            with handle.store.lock(key):
                arrays = handle.store.get_or_make(key, f"{name}, {handle.name}", observe).arrays
            device = self.models.pool.device
            return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}

        return self._observed.get(key, load)
