"""Shards: the quantized models of a plan in parts, one for each machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pytest_qreliab.config.cases import Build, Case
from pytest_qreliab.config.settings import Setting
from pytest_qreliab.errors import InputError

T = TypeVar("T")


def contiguous_part(items: Sequence[T], number: int, count: int) -> Sequence[T]:
    """Return one of several contiguous parts whose lengths differ by one at most.

    Args:
        items: The items to divide.
        number: The number of the part, from 1.
        count: The number of parts.
    """
    return items[(number - 1) * len(items) // count : number * len(items) // count]


@dataclass(frozen=True)
class Shard:
    """A part of a plan for one machine."""

    number: int  # from 1
    count: int
    parts: frozenset[Case | Build | str]  # some builds with all their cases, and the models whose first build is here

    def __str__(self) -> str:
        return f"shard {self.number} of {self.count}"


def select(setting: Setting, cases: Sequence[Case]) -> Shard | None:
    """Return the shard that a setting asks for, None if it asks for none.

    Args:
        setting: The setting, `K/N` or `none`.
        cases: The cases of the plan, in order.

    Raises:
        InputError: The text has another form, or there are more shards than builds.
    """
    (value,) = setting.values(many=False)
    if value.text == "none":
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", value.text, re.ASCII)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise InputError(f"{value.origin}: {value.text!r} is no shard; write K/N, as in 1/4, K from 1 to N, or none")
    builds = list(dict.fromkeys(case.build for case in cases))
    if count > len(builds):
        raise InputError(
            f"{value.origin}: {count} shards of {len(builds)} quantized model{'s' * (len(builds) > 1)} would leave "
            f"some without tests; give at most {len(builds)}"
        )
    first_builds: dict[str, Build] = {}  # by model
    for build in builds:
        first_builds.setdefault(build.model, build)
    here = set(contiguous_part(builds, number, count))
    return Shard(
        number,
        count,
        frozenset[Case | Build | str]().union(
            here,
            (case for case in cases if case.build in here),
            (model for model, build in first_builds.items() if build in here),
        ),
    )
