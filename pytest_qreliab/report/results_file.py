"""The results of a run in a JSON file, and those of several shards put together.

Of the numbers that JSON has not, NaN is null in it, and infinity the string "Infinity" or "-Infinity".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_qreliab._version import __version__
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.report import files
from pytest_qreliab.report.records import CaseRecord, passed


class Planned(BaseModel):
    """The plan that results are of: a digest of what decides them, and the ids of all its cases in order."""

    digest: str
    cases: list[str]


class Results(BaseModel):
    """The format of a results file, version 1.

    `created` is the time of the run's end, in UTC. `errors` says what went wrong with cases that have no result.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    qreliab: str
    created: str
    shard: tuple[int, int] | None
    plan: Planned
    cases: list[CaseRecord]
    errors: dict[str, str]
    exitstatus: int

    def unmeasured(self) -> dict[str, str]:
        """The cases of the plan that have no result, and why."""
        measured = {entry["case"] for entry in self.cases}
        return {case: self.errors.get(case, "not measured") for case in self.plan.cases if case not in measured}

    def failed(self) -> list[str]:
        """The cases that a gate does not let pass."""
        return [entry["case"] for entry in self.cases if not passed(entry)]


def planned(plan: Plan) -> Planned:
    """The plan as results name it, the same wherever its files lie and on whatever device it runs."""
    cases = [
        [
            case.id,
            plan.alpha(case),
            plan.thresholds[case].policy.correction,
            plan.thresholds[case].policy.inconclusive,
            [[gate.metric, gate.limit, gate.value] for gate in plan.all_gates(case)],
        ]
        for case in plan.cases
    ]
    recipes = {
        name: [recipe.quantizer.name, recipe.parameters.model_dump_json()] for name, recipe in plan.recipes.items()
    }
    data = {
        name: [of.classes, of.templates, {name: len(images) for name, images in of.sets.items()}]
        for name, of in plan.data.items()
    }
    said = json.dumps([__version__, cases, recipes, data, plan.controls])
    return Planned(digest=hashlib.sha256(said.encode()).hexdigest(), cases=[case.id for case in plan.cases])


def write(path: Path, results: Results) -> None:
    """Write a results file, whole or not at all. Raises OSError."""
    files.write(path, text(results))


def text(results: Results) -> str:
    """The results as JSON."""
    return json.dumps(_plain(results.model_dump()), allow_nan=False, separators=(",", ":")) + "\n"


def _plain(value: Any) -> Any:
    """The value with numbers that JSON has not as strings."""
    if isinstance(value, dict):
        return {key: _plain(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(of) for of in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read(path: Path) -> Results:
    """The results in a file. Raises InputError for one that cannot be read or is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: is no JSON: {error}") from None
    version = data.get("version") if isinstance(data, dict) else None
    if version != 1:
        raise InputError(f"{path}: is no results file of version 1, as --qreliab-json writes it")
    try:
        results = Results.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for entry in results.cases:
        if entry["case"] not in results.plan.cases or not entry["gates"]:
            raise InputError(f"{path}: {entry['case']} is not of its plan, or has no gate: the file is damaged")
    return results


def merge(shards: Mapping[Path, Results]) -> tuple[Results, int, list[int]]:
    """The results of all shards of one plan as those of one run, how many shards there are, and which are missing.

    Its exit status is 0 where every run's is, every gate passed and every case has a result, else 1. Raises
    InputError for files that are not shards of one run, each there once.
    """
    (first, of_first), *others = shards.items()
    for path, results in others:
        if results.plan != of_first.plan:
            raise InputError(f"{path} is of another plan than {first}: options, files or versions differ")
    by_shard: dict[int, Path] = {}
    count = 1
    for path, results in shards.items():
        if results.shard is None and others:
            raise InputError(f"{path} is of a whole run, no shard: give it alone")
        number, count = results.shard or (1, 1)
        if of_first.shard is not None and count != of_first.shard[1]:
            raise InputError(f"{path} is a shard of {count}, {first} one of {of_first.shard[1]}")
        if by_shard.setdefault(number, path) != path:
            raise InputError(f"{path} and {by_shard[number]} are both shard {number} of {count}")
    missing = [number for number in range(1, count + 1) if number not in by_shard]
    entries = {entry["case"]: entry for results in shards.values() for entry in results.cases}
    merged = Results(
        qreliab=of_first.qreliab,
        created=max(results.created for results in shards.values()),
        shard=None,
        plan=of_first.plan,
        cases=[entries[case] for case in of_first.plan.cases if case in entries],
        errors={case: text for results in shards.values() for case, text in results.errors.items()},
        exitstatus=0,
    )
    bad = missing or merged.unmeasured() or merged.failed() or any(r.exitstatus for r in shards.values())
    return merged.model_copy(update={"exitstatus": 1 if bad else 0, "errors": merged.unmeasured()}), count, missing
