"""A handle for every model of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pytest_qreliab.config.cases import Build
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.embedding import keys
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.evaluation.model_pool import ModelPool
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.hashing import digest
from pytest_qreliab.models.clip import Clip


@dataclass(kw_only=True)
class ModelCache:
    """The handles of a plan's models, whose outputs are cached in a store."""

    plan: Plan
    pool: ModelPool  # makes the models
    reader: Reader
    store: Store
    passing: Store  # removed after the run: for a model without a key that tells it from those of other runs
    environment: str  # what else the numbers depend on
    _handles: dict[str | Build, ModelHandle] = field(default_factory=dict, init=False)
    _keys: dict[str, str | None] = field(default_factory=dict, init=False)

    def get(self, model: str | Build) -> ModelHandle:
        """Return the handle of a full-precision model, given by name, or of a quantized one.

        Raises:
            InputError: The files that tell what the model is cannot be read, or a model without any cannot be loaded.
        """
        if model not in self._handles:
            self._handles[model] = self._baseline(model) if isinstance(model, str) else self._quantized(model)
        return self._handles[model]

    def calibration_key(self, data: Dataset) -> list[Any]:
        """Return what a quantizer may look at of a benchmark, as a part of a digest."""
        images = data.calibration
        labels = None if images is None or images.labels is None else images.labels.tolist()
        manifest = None if images is None else self.reader.manifest(images)
        pairs = None
        if data.captions is not None:
            pairs = [self.reader.manifest(data.captions), list(data.captions.known_captions)]
        return [manifest, labels, pairs, data.classes, data.templates, data.preprocessing.model_dump()]

    def _baseline(self, model: str) -> ModelHandle:
        return self._handle(model, self._baseline_key(model), lambda: self.pool.baseline(model))

    def _quantized(self, build: Build) -> ModelHandle:
        name = f"{build.model} {build.quantizer} {build.bits} {build.scope}"
        key, full = self._build_key(build), self.get(build.model)
        return self._handle(name, key, lambda: self.pool.quantized(build).clip, full)

    def _handle(
        self, name: str, key: str | None, make: Callable[[], Clip], full: ModelHandle | None = None
    ) -> ModelHandle:
        return ModelHandle(
            name=name,
            key=digest(self.environment, key or uuid4().hex),
            store=self.passing if key is None else self.store,
            make=make,
            full=full,
        )

    def _baseline_key(self, model: str) -> str | None:
        if model not in self._keys:
            self._keys[model] = keys.loader_key(self.plan.models[model], self.reader.file_digests)
        return self._keys[model]

    def _build_key(self, build: Build) -> str | None:
        recipe = keys.recipe_key(self.plan.recipes[build.quantizer], self.reader.file_digests)
        model = self._baseline_key(build.model)
        if recipe is None or model is None:
            return None
        calibration = None
        if build.calibration is not None:
            calibration = self.calibration_key(self.plan.data[build.calibration])
        return digest("build", model, recipe, str(build.bits), build.scope, calibration)
