"""A model that is made only if the store lacks something of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pytest_qreliab.embedding.entry_files import Arrays
from pytest_qreliab.embedding.forward import full_precision
from pytest_qreliab.embedding.store import Store
from pytest_qreliab.hashing import digest
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.same_tower import Tower, same_tower

TOWERS: tuple[Tower, ...] = ("vision", "text")


@dataclass(eq=False, kw_only=True)
class ModelHandle:
    """A model, full precision or quantized, that is made only if the store lacks something of it."""

    name: str
    key: str  # tells its outputs from those of every other model
    store: Store  # keeps its outputs
    make: Callable[[], Clip]
    full: ModelHandle | None = None  # the full-precision model that it was made from

    @cached_property
    def facts(self) -> ModelFacts:
        """The facts of the model, which is made for them at most once."""

        def make() -> tuple[Arrays, dict[str, Any]]:
            return {}, asdict(ModelFacts.measure(self.make(), None if self.full is None else self.full.make()))

        key = digest("facts", self.key)
        return ModelFacts(**self.store.get_or_make(key, f"logit scale of {self.name}", make).facts)

    def tower(self, which: Tower) -> ModelHandle:
        """Return the model that the tower belongs to.

        It is the full-precision one if the tower is the same to the bit. Its features are then not computed twice.
        """
        return self.full if self.full is not None and which in self.facts.shared else self


@dataclass(frozen=True)
class ModelFacts:
    """The numbers of a model that go with its features."""

    logit_scale: float
    logit_bias: float
    shared: list[Tower]  # the towers whose features are those of full precision to the bit

    @classmethod
    def measure(cls, clip: Clip, full: Clip | None) -> ModelFacts:
        """Return the facts of a model, which is compared with the one that it was made from."""
        with full_precision():
            shared = [tower for tower in TOWERS if full is not None and same_tower(clip, full, tower)]
        return cls(clip.logit_scale, clip.logit_bias, shared)
