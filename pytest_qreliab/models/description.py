"""What is known of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What is known of a full-precision model before it is loaded, in words."""

    facts: Mapping[str, str] = field(default_factory=dict)  # such as its file, mean and activation, by what they are
    warnings: tuple[str, ...] = ()  # what a reader of its results should know; each names the model
