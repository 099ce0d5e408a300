"""Thresholds: the gates of a release policy, read from YAML and resolved for each case."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.document import Document, Location, Strict, find, read
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry

Limit = Literal["max_drop", "max_rise", "max_change", "max_relative_change", "min", "max", "max_drift"]
Inconclusive = Literal["estimate", "fail", "pass"]
Correction = Literal["bonferroni", "holm", "benjamini-hochberg", "none"]

# A harm that equals its limit passes, and binary rounding of decimal fractions must not decide otherwise.
LIMIT_TOLERANCE = 1e-9

Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bound = Annotated[float, Field(allow_inf_nan=False)]


class Limits(Strict):
    """What one metric may do. The tolerances are on the change from the baseline, `min` and `max` on the value, and
    `max_drift` is on how much worse it may be than what a snapshot holds."""

    max_drop: Tolerance | None = None
    max_rise: Tolerance | None = None
    max_change: Tolerance | None = None
    max_relative_change: Tolerance | None = None
    min: Bound | None = None
    max: Bound | None = None
    max_drift: Tolerance | None = None

    def given(self) -> dict[Limit, float]:
        return {name: value for name, value in self if value is not None}  # type: ignore[misc]

    @model_validator(mode="after")
    def _sensible(self) -> Limits:
        if not self.given():
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}, so nothing can pass")
        return self


Gates = dict[str, Limits]


class Match(Strict):
    """Which cases an override is for: shell patterns, all of which must match."""

    model: str | None = None
    quantizer: str | None = None
    bits: str | None = None
    scope: str | None = None
    benchmark: str | None = None

    def given(self) -> dict[str, str]:
        return {name: value for name, value in self if value is not None}

    @model_validator(mode="after")
    def _not_empty(self) -> Match:
        if not self.given():
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self

    def matches(self, case: Case) -> bool:
        build = case.build
        names = {
            "model": build.model,
            "quantizer": build.quantizer,
            "bits": str(build.bits),
            "scope": build.scope,
            "benchmark": case.benchmark,
        }
        return all(fnmatchcase(names[key], pattern) for key, pattern in self.given().items())

    @property
    def specificity(self) -> tuple[int, int]:
        """Number of patterns, then number of those without a wildcard: the larger wins."""
        patterns = self.given().values()
        return len(patterns), sum(not any(sign in pattern for sign in "*?[") for pattern in patterns)


def _checked(gates: Gates) -> Gates:
    for name, limits in gates.items():
        try:
            better = registry.lookup(name).better
        except InputError as error:
            raise _at_key(name, str(error)) from None
        given = limits.given()
        mend = {"higher": "max_drop", "lower": "max_rise", "neither": "max_change"}[better]
        for direction in ("max_drop", "max_rise"):
            if direction in given and direction != mend:
                raise _at_key(name, f"{direction} of {name} would be no harm; write {mend}")
    return gates


def _at_key(key: str, message: str) -> PydanticCustomError:
    """An error that `Document.validate` shows at the line of that key."""
    return PydanticCustomError("gate", "{message}", {"message": message, "key": key})


class Override(Strict):
    match: Match
    gates: Gates = Field(min_length=1)

    _gates = field_validator("gates")(_checked)


class Policy(Strict):
    """The schema of a thresholds file, version 1."""

    version: Literal[1]
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    correction: Correction = "bonferroni"
    inconclusive: Inconclusive = "estimate"
    gates: Gates = Field(min_length=1)
    overrides: list[Override] = []

    _gates = field_validator("gates")(_checked)


@dataclass(frozen=True)
class Gate:
    """One limit on one metric, and the `file:line` it was read from."""

    metric: str
    limit: Limit
    value: float
    where: str

    @property
    def largest_harm(self) -> float:
        """What the harm may be at most: 0 for `min` and `max`, whose harm is the distance beyond the bound."""
        return 0.0 if self.limit in ("min", "max") else self.value

    @property
    def aspect(self) -> str:
        return registry.lookup(self.metric).aspect

    @property
    def is_drift(self) -> bool:
        """Whether it is on the change from accepted results, where others are on that from full precision."""
        return self.limit == "max_drift"


@dataclass(frozen=True)
class Thresholds:
    policy: Policy
    document: Document

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> Thresholds:
        """Thresholds of a shipped name or a YAML path, relative to `folder`. Raises InputError with file and line."""
        document = read(find("thresholds", name, folder))
        return cls(document.validate(Policy), document)

    def gates(self, case: Case) -> list[Gate]:
        """The gates of a case: of all entries for a metric, those of the most specific override that matches.

        Raises InputError when two overrides of equal rank claim the same metric.
        """
        chosen: dict[str, tuple[tuple[int, int], Limits, Location]] = {}
        for name, limits in self.policy.gates.items():
            chosen[name] = ((0, 0), limits, ("gates", name))
        for index, override in enumerate(self.policy.overrides):
            if not override.match.matches(case):
                continue
            rank = override.match.specificity
            for name, limits in override.gates.items():
                at: Location = ("overrides", index, "gates", name)
                before = chosen.get(name)
                if before and before[0] == rank:
                    raise InputError(
                        f"{self.document.where(at)}: two overrides of equal rank gate {name} of {case.id}, "
                        f"the other is at {self.document.where(before[2])}; make one match more exactly"
                    )
                if not before or before[0] < rank:
                    chosen[name] = (rank, limits, at)
        return [
            Gate(name, limit, value, self.document.where((*at, limit)))
            for name, (_, limits, at) in chosen.items()
            for limit, value in limits.given().items()
        ]
