"""Thresholds files: the gates of a release policy, resolved for each case."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, get_args

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
    `max_drift` is on how much worse it may be than what a snapshot holds. With `where_missing: skip` a run goes on if
    its benchmark, recorded outputs or model lack what the metric is measured on; else that is an error.
    """

    max_drop: Tolerance | None = None
    max_rise: Tolerance | None = None
    max_change: Tolerance | None = None
    max_relative_change: Tolerance | None = None
    min: Bound | None = None
    max: Bound | None = None
    max_drift: Tolerance | None = None
    where_missing: Literal["skip"] | None = None

    def given(self) -> dict[Limit, float]:
        """Return the limits that are set, by name."""
        limits: tuple[Limit, ...] = get_args(Limit)
        return {name: value for name in limits if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _sensible(self) -> Limits:
        if not self.given():
            raise ValueError(f"give at least one of {', '.join(get_args(Limit))}")
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
        """Return the patterns that are set, by the part of a case."""
        return {name: value for name, value in self if value is not None}

    @model_validator(mode="after")
    def _not_empty(self) -> Match:
        if not self.given():
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self

    def matches(self, case: Case) -> bool:
        """Return whether all patterns match the case."""
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
        """The numbers of patterns, and of those without a wildcard.

        The override with the larger pair wins.
        """
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
    """Return an error that `Document.validate` shows at the line of that key."""
    return PydanticCustomError("gate", "{message}", {"message": message, "key": key})


class Override(Strict):  # noqa: D101 (its docstring would be a new description in the shipped schema)
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


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A limit on a metric."""

    metric: str
    limit: Limit
    value: float
    where: str  # the `file:line` that it comes from
    skippable: bool = False  # whether the file says `where_missing: skip`

    @property
    def largest_harm(self) -> float:
        """The harm up to which the gate passes.

        It is 0 for `min` and `max`, because their harm is the distance beyond the bound.
        """
        return 0.0 if self.limit in ("min", "max") else self.value

    @property
    def aspect(self) -> str:
        """The aspect of reliability that the metric belongs to."""
        return registry.lookup(self.metric).aspect

    @property
    def is_drift(self) -> bool:
        """True if the gate limits the change from accepted results."""
        return self.limit == "max_drift"


@dataclass(frozen=True)
class Thresholds:
    """A valid thresholds file."""

    policy: Policy
    document: Document

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> Thresholds:
        """Load thresholds.

        Args:
            name: A name that the package ships, or the path of a YAML file.
            folder: Where a relative path starts, by default the working directory.

        Raises:
            InputError: The file does not exist or is not valid. The message has file and line.
        """
        document = read(find("thresholds", name, folder))
        return cls(document.validate(Policy), document)

    def unmatched(self, cases: Collection[Case]) -> list[str]:
        """Return the `file:line` of each override that matches none of the cases."""
        return [
            self.document.where(("overrides", index))
            for index, override in enumerate(self.policy.overrides)
            if not any(map(override.match.matches, cases))
        ]

    def gates(self, case: Case) -> list[Gate]:
        """Return the gates of a case.

        A metric has the limits of the most specific override that matches the case and names the metric. Without
        such an override it has the limits of the policy.

        Raises:
            InputError: Two overrides of equal rank give limits for the same metric.
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
            Gate(
                metric=name,
                limit=limit,
                value=value,
                where=self.document.where((*at, limit)),
                skippable=limits.where_missing == "skip",
            )
            for name, (_, limits, at) in chosen.items()
            for limit, value in limits.given().items()
        ]
