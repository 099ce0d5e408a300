"""What is embedded: models that are made only where the store lacks something of them, and what tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any
from uuid import uuid4

import torch

from pytest_qreliab.config.cases import Build
from pytest_qreliab.data.batches import Reader
from pytest_qreliab.data.loading import Data
from pytest_qreliab.embedding import keys
from pytest_qreliab.embedding.forward import full_precision
from pytest_qreliab.embedding.store import Arrays, Store, digest
from pytest_qreliab.evaluation.planning.make_plan import Plan
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers


@dataclass(eq=False)
class Subject:
    """What is embedded: a model, full precision or quantized, which is made only where the store lacks something of it.

    `key` tells what it gives from what any other model gives; `store` is where that is kept. `full` is the
    full-precision model that it was made from: a tower that gives the same to the bit is not run, nor kept, twice.
    """

    name: str
    key: str
    store: Store
    make: Callable[[], Clip]
    full: Subject | None = None

    @cached_property
    def facts(self) -> Facts:
        """What else is known of the model, which is made for it at most once."""

        def make() -> tuple[Arrays, dict[str, Any]]:
            return {}, vars(Facts.of(self.make(), None if self.full is None else self.full.make()))

        return Facts(**self.store.kept(digest("facts", self.key), f"logit scale of {self.name}", make).facts)

    def tower(self, which: str) -> Subject:
        """The model that the image (`vision`) or text tower is that of."""
        return self.full if self.full is not None and which in self.facts.shared else self


@dataclass(frozen=True)
class Facts:
    """The logit scale and bias of a model, and which towers, `vision` or `text`, give what full precision gives."""

    logit_scale: float
    logit_bias: float
    shared: list[str]

    @classmethod
    def of(cls, clip: Clip, full: Clip | None) -> Facts:
        shared = []
        if full is not None:
            with full_precision():
                image, prompt = layers.one_image(clip), ["a photo"]
                if torch.equal(clip.encode_image(image), full.encode_image(image)):
                    shared.append("vision")
                if torch.equal(clip.encode_text(prompt), full.encode_text(prompt)):
                    shared.append("text")
        return cls(clip.logit_scale, clip.logit_bias, shared)


@dataclass
class Subjects:
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
    _known: dict[str | Build, Subject] = field(default_factory=dict)
    _keys: dict[str, str | None] = field(default_factory=dict)

    def of(self, of: str | Build) -> Subject:
        """A full-precision model, by its name, or a quantized one."""
        if of not in self._known:
            self._known[of] = self._model(of) if isinstance(of, str) else self._quantized(of)
        return self._known[of]

    def _model(self, name: str) -> Subject:
        return self._kept(name, self._key_of_model(name), partial(self.baseline, name))

    def _quantized(self, build: Build) -> Subject:
        name = f"{build.model} {build.quantizer} {build.bits} {build.scope}"
        return self._kept(name, self._key_of_build(build), partial(self.quantized, build), self.of(build.model))

    def _kept(self, name: str, key: str | None, make: Callable[[], Clip], full: Subject | None = None) -> Subject:
        store = self.store if key is not None else self.passing
        return Subject(name, digest(self.environment, key or uuid4().hex), store, make, full)

    def _key_of_model(self, model: str) -> str | None:
        if model not in self._keys:
            loader = self.plan.models[model]
            self._keys[model] = (
                keys.of_weights(self.baseline(model))
                if loader.by_weights
                else keys.of_loader(loader, self.store.digests)
            )
        return self._keys[model]

    def _key_of_build(self, build: Build) -> str | None:
        recipe = keys.of_recipe(self.plan.recipes[build.quantizer], self.store.digests)
        model = self._key_of_model(build.model)
        if recipe is None or model is None:
            return None
        calibration = None
        if build.calibration is not None:
            calibration = self.key_of_calibration(self.plan.data[build.calibration])
        return digest("build", model, recipe, str(build.bits), build.scope, calibration)

    def key_of_calibration(self, data: Data) -> list[Any]:
        """What a quantizer may look at of a benchmark."""
        images = data.calibration
        labels = None if images is None or images.labels is None else images.labels.tolist()
        manifest = None if images is None else self.reader.manifest(images)
        return [manifest, labels, data.classes, data.templates, data.preprocessing.model_dump()]
