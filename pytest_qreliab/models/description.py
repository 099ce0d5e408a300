"""The description of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


def in_words(facts: Mapping[str, str]) -> str:
    """Return facts as a list in words."""
    return ", ".join(f"{what} {value}" for what, value in facts.items())


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """The description of a full-precision model before it is loaded, in words."""

    facts: Mapping[str, str] = field(default_factory=dict)  # such as its file, mean and activation, by what they are
    warnings: tuple[str, ...] = ()  # what a reader of its results should know; each names the model
    blocks: int | None = None  # of the image tower, if it is known how many show a map
    checkpoint: Path | None = None  # the file whose digest belongs to the facts

    def with_digest(self, digest: str) -> ModelDescription:
        """Return the same with the digest of the checkpoint behind its name."""
        facts: dict[str, str] = {}
        for what, value in self.facts.items():
            facts[what] = value
            if what == "file":
                facts["sha256"] = digest[:12]
        return replace(self, facts=facts)
