"""What is embedded: models that are made only where the store lacks something of them, and what tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pytest_qreliab.embedding.forward import full_precision
from pytest_qreliab.embedding.store import Arrays, Store
from pytest_qreliab.hashing import digest
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers


@dataclass(eq=False)
class ModelHandle:
    """What is embedded: a model, full precision or quantized, which is made only where the store lacks something of it.

    `key` tells what it gives from what any other model gives; `store` is where that is kept. `full` is the
    full-precision model that it was made from: a tower that gives the same to the bit is not run, nor kept, twice.
    """

    name: str
    key: str
    store: Store
    make: Callable[[], Clip]
    full: ModelHandle | None = None

    @cached_property
    def facts(self) -> ModelFacts:
        """What else is known of the model, which is made for it at most once."""

        def make() -> tuple[Arrays, dict[str, Any]]:
            return {}, vars(ModelFacts.measure(self.make(), None if self.full is None else self.full.make()))

        return ModelFacts(
            **self.store.get_or_make(digest("facts", self.key), f"logit scale of {self.name}", make).facts
        )

    def tower(self, which: str) -> ModelHandle:
        """The model that the image (`vision`) or text tower is that of."""
        return self.full if self.full is not None and which in self.facts.shared else self


@dataclass(frozen=True)
class ModelFacts:
    """The logit scale and bias of a model, and which towers, `vision` or `text`, give what full precision gives."""

    logit_scale: float
    logit_bias: float
    shared: list[str]

    @classmethod
    def measure(cls, clip: Clip, full: Clip | None) -> ModelFacts:
        shared = []
        if full is not None:
            with full_precision():
                image, prompt = layers.one_image(clip), ["a photo"]
                if torch.equal(clip.encode_image(image), full.encode_image(image)):
                    shared.append("vision")
                if torch.equal(clip.encode_text(prompt), full.encode_text(prompt)):
                    shared.append("text")
        return cls(clip.logit_scale, clip.logit_bias, shared)
