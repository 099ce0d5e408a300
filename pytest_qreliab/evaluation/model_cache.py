"""A handle for every model of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from pytest_qreliab.config.cases import Build
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.embedding import keys
from pytest_qreliab.embedding.model_handle import ModelHandle
from pytest_qreliab.embedding.reader import Reader
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.hashing import digest
from pytest_qreliab.models.clip import Clip


@dataclass
class ModelCache:
    """The models of a plan. What nothing tells from what it may be in another run goes to a store that passes.

    `environment` is what else the numbers depend on; `baseline` and `quantized` make the models.
    """

    plan: Plan
    store: Store
    passing: Store
    reader: Reader
    environment: str
    baseline: Callable[[str], Clip]
    quantized: Callable[[Build], Clip]
    _known: dict[str | Build, ModelHandle] = field(default_factory=dict)
    _keys: dict[str, str | None] = field(default_factory=dict)

    def get(self, of: str | Build) -> ModelHandle:
        """A full-precision model, by its name, or a quantized one."""
        if of not in self._known:
            self._known[of] = self._model(of) if isinstance(of, str) else self._quantized(of)
        return self._known[of]

    def _model(self, name: str) -> ModelHandle:
        return self._kept(name, self._key_of_model(name), partial(self.baseline, name))

    def _quantized(self, build: Build) -> ModelHandle:
        name = f"{build.model} {build.quantizer} {build.bits} {build.scope}"
        return self._kept(name, self._key_of_build(build), partial(self.quantized, build), self.get(build.model))

    def _kept(
        self, name: str, key: str | None, make: Callable[[], Clip], full: ModelHandle | None = None
    ) -> ModelHandle:
        store = self.store if key is not None else self.passing
        return ModelHandle(name, digest(self.environment, key or uuid4().hex), store, make, full)

    def _key_of_model(self, model: str) -> str | None:
        if model not in self._keys:
            loader = self.plan.models[model]
            self._keys[model] = (
                keys.weights_key(self.baseline(model))
                if loader.by_weights
                else keys.loader_key(loader, self.store.digests)
            )
        return self._keys[model]

    def _key_of_build(self, build: Build) -> str | None:
        recipe = keys.recipe_key(self.plan.recipes[build.quantizer], self.store.digests)
        model = self._key_of_model(build.model)
        if recipe is None or model is None:
            return None
        calibration = None
        if build.calibration is not None:
            calibration = self.key_of_calibration(self.plan.data[build.calibration])
        return digest("build", model, recipe, str(build.bits), build.scope, calibration)

    def key_of_calibration(self, data: Dataset) -> list[Any]:
        """What a quantizer may look at of a benchmark."""
        images = data.calibration
        labels = None if images is None or images.labels is None else images.labels.tolist()
        manifest = None if images is None else self.reader.manifest(images)
        return [manifest, labels, data.classes, data.templates, data.preprocessing.model_dump()]
