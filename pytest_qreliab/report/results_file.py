"""The results of a run or of shards as JSON.

JSON has no number for NaN, which is null in the file, nor for infinity, which is "Infinity" or "-Infinity".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_qreliab._version import __version__
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.plan import Plan
from pytest_qreliab.hashing import text_sha256
from pytest_qreliab.report import files
from pytest_qreliab.report.queries import passed
from pytest_qreliab.report.records import CaseRecord


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
        """Return the cases without a result, each with the reason."""
        measured = {record["case"] for record in self.cases}
        return {case: self.errors.get(case, "not measured") for case in self.plan.cases if case not in measured}

    def failed(self) -> list[str]:
        """Return the cases that a gate does not let pass."""
        return [record["case"] for record in self.cases if not passed(record)]


@dataclass(frozen=True)
class Merged:
    """The results of the shards of one run."""

    results: Results
    shards: int  # how many the run was cut into
    missing: list[int]  # numbers of shards without a file, from 1


def identify_plan(plan: Plan) -> Planned:
    """Return the identity of a plan: a digest and its cases.

    The digest covers everything that decides the results. It depends neither on the folders of files nor on the device.
    """
    cases = [
        [
            case.id,
            plan.error_probability(case),
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
        name: [dataset.classes, dataset.templates, {name: len(images) for name, images in dataset.sets.items()}]
        for name, dataset in plan.data.items()
    }
    description = json.dumps([__version__, cases, recipes, data, plan.controls, plan.deterministic])
    return Planned(digest=text_sha256(description), cases=[case.id for case in plan.cases])


def write(path: Path, results: Results) -> None:
    """Write a results file, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    files.write(path, to_json(results))


def to_json(results: Results) -> str:
    """Return the content of a results file."""
    return json.dumps(_json_values(results.model_dump()), allow_nan=False, separators=(",", ":")) + "\n"


def _json_values(value: Any) -> Any:
    """Replace the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read(path: Path) -> Results:
    """Read a results file.

    Raises:
        InputError: The file cannot be read, is no results file, or is damaged.
    """
    content = files.read(path)
    try:
        data = json.loads(content.decode())
    except ValueError as error:
        raise InputError(f"{path}: is no JSON: {error}") from None
    version = data.get("version") if isinstance(data, dict) else None
    if version != 1:
        raise InputError(f"{path}: is no results file of version 1, as --qreliab-json writes it")
    try:
        results = Results.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: {files.first_problem(error)}") from None
    for record in results.cases:
        if record["case"] not in results.plan.cases or not record["gates"]:
            raise InputError(f"{path}: {record['case']} is not of its plan, or has no gate: the file is damaged")
    return results


def merge(shards: Mapping[Path, Results]) -> Merged:
    """Merge the results of shards into the results of one run.

    The merged exit status is 0 if every run ended with 0, every gate passed and every case has a result. Otherwise it
    is 1.

    Raises:
        InputError: The files are not shards of one run, or one shard is given twice.
    """
    first = next(iter(shards.values()))
    count = 1 if first.shard is None else first.shard[1]
    paths = _paths_by_number(shards)
    missing = [number for number in range(1, count + 1) if number not in paths]
    records = {record["case"]: record for results in shards.values() for record in results.cases}
    merged = Results(
        qreliab=first.qreliab,
        created=max(results.created for results in shards.values()),
        shard=None,
        plan=first.plan,
        cases=[records[case] for case in first.plan.cases if case in records],
        errors={case: text for results in shards.values() for case, text in results.errors.items()},
        exitstatus=0,
    )
    any_failed = any(results.exitstatus for results in shards.values()) or merged.failed()
    status = 1 if missing or merged.unmeasured() or any_failed else 0
    merged = merged.model_copy(update={"exitstatus": status, "errors": merged.unmeasured()})
    return Merged(merged, count, missing)


def _paths_by_number(shards: Mapping[Path, Results]) -> dict[int, Path]:
    """Return the file of each shard; raise InputError for other files."""
    (first_path, first), *others = shards.items()
    for path, results in others:
        if results.plan != first.plan:
            raise InputError(f"{path} is of another plan than {first_path}: options, files or versions differ")
    paths: dict[int, Path] = {}
    for path, results in shards.items():
        if results.shard is None and others:
            raise InputError(f"{path} is of a whole run, no shard: give it alone")
        number, count = results.shard or (1, 1)
        if first.shard is not None and count != first.shard[1]:
            raise InputError(f"{path} is a shard of {count}, {first_path} one of {first.shard[1]}")
        if paths.setdefault(number, path) != path:
            raise InputError(f"{path} and {paths[number]} are both shard {number} of {count}")
    return paths
