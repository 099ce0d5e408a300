"""Snapshots, the accepted results of a release.

Later runs are judged against them. Each model has a JSON file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_qreliab.config.cases import Case
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedValues
from pytest_qreliab.hashing import text_sha256
from pytest_qreliab.metrics import registry
from pytest_qreliab.report import files
from pytest_qreliab.report.queries import is_drift
from pytest_qreliab.report.records import CaseRecord

Update = Literal["none", "new", "all"]

DIGITS = 6  # of a number in a file; more would change with the number of threads
UPDATE = "--qreliab-update"


class AcceptedMetric(BaseModel):
    """The quantized value of a metric, its change from full precision with bounds, and the number of samples."""

    model_config = ConfigDict(extra="forbid")

    value: float
    change: float
    low: float | None
    high: float | None
    n: int


class AcceptedCase(BaseModel):
    """The gated metrics of a case; `data` and `environment` are keys of the file's tables."""

    model_config = ConfigDict(extra="forbid")

    data: str
    environment: str
    metrics: dict[str, AcceptedMetric]


class ModelSnapshot(BaseModel):
    """The schema of a snapshot file, version 1: the accepted cases of one model."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    model: str
    data: dict[str, dict[str, str]] = {}
    environments: dict[str, dict[str, str]] = {}
    cases: dict[str, AcceptedCase] = {}

    def text(self) -> str:
        """Return the content of the file.

        It is the same for the same cases, with a number a line.
        """
        return json.dumps(self.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    def with_cases(self, cases: Mapping[str, AcceptedCase], records: Sequence[CaseRecord]) -> ModelSnapshot:
        """Return a snapshot of the same model with other cases.

        Its tables hold only what they refer to.

        Args:
            cases: All cases of the new snapshot.
            records: Describe the data and the environment of cases that are not in this snapshot.
        """
        data, environments = dict(self.data), dict(self.environments)
        for record in records:
            data.setdefault(key_of(record["data"]), record["data"])
            environments.setdefault(key_of(record["environment"]), record["environment"])
        used_data = {case.data for case in cases.values()}
        used_environments = {case.environment for case in cases.values()}
        return ModelSnapshot(
            model=self.model,
            data={key: table for key, table in data.items() if key in used_data},
            environments={key: table for key, table in environments.items() if key in used_environments},
            cases=dict(cases),
        )


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot of one model, and where it lies."""

    path: Path
    content: ModelSnapshot


@dataclass(frozen=True, kw_only=True)
class SnapshotUpdate:
    """The cases of a run by what became of them."""

    new: list[str] = field(default_factory=list)  # accepted for the first time
    changed: list[str] = field(default_factory=list)  # with other values than before
    kept: list[str] = field(default_factory=list)  # with the same values as before
    refused: list[str] = field(default_factory=list)  # not accepted, because a gate fails

    def lines(self, where: str) -> list[str]:
        """Say how many cases were accepted, and which were refused."""
        groups = {"new": self.new, "changed": self.changed, "as before": self.kept}
        counts = ", ".join(f"{len(cases)} {name}" for name, cases in groups.items() if cases) or "nothing"
        return [
            f"accepted into {where}: {counts}",
            *(f"not accepted, as a gate fails: {case}" for case in self.refused),
        ]


@dataclass(frozen=True)
class Snapshot:
    """The accepted results of all models in a folder."""

    folder: Path
    models: Mapping[str, ModelSnapshot]
    update: Update = "none"  # which results of this run are to be accepted

    def accepted(self, case: Case, data: Mapping[str, str]) -> AcceptedValues:
        """Return the accepted values of a case.

        Args:
            case: The case that is measured.
            data: The data that it is measured on now, in words.
        """
        accepted = self._find(case)
        if accepted is None or self.update == "all":
            return AcceptedValues(values={}, where=str(self.folder), renewing=self.update != "none")
        values = {name: metric.value for name, metric in accepted.metrics.items()}
        same = accepted.data == key_of(data)
        renewing = same and self.update == "new"
        return AcceptedValues(values=values, where=str(self.folder), renewing=renewing, comparable=same)

    def differences(self, case: Case, data: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
        """Say field by field what was different when a case was accepted.

        Args:
            case: The case that is measured.
            data: The data that it is measured on now, in words.
            environment: The versions and the hardware that it is measured with now, in words.
        """
        accepted = self._find(case)
        if accepted is None or self.update == "all":
            return []
        model = self.models[case.build.model]
        return [
            f"{what}: {name} {before.get(name, 'none')} was accepted, {now.get(name, 'none')} is there now"
            for what, before, now in (
                (f"data of {case.benchmark}", model.data.get(accepted.data, {}), data),
                ("environment", model.environments.get(accepted.environment, {}), environment),
            )
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]

    def unused(self, cases: Collection[str]) -> list[str]:
        """Return the accepted cases that are not among the given ones."""
        return sorted(case for model in self.models.values() for case in model.cases if case not in cases)

    def renew(self, records: Sequence[CaseRecord]) -> SnapshotUpdate:
        """Accept the results of a run and write what changes.

        A case with a failed gate is refused, unless only gates on the drift fail.

        Raises:
            InputError: A file in the folder is damaged.
            OSError: A file cannot be written.
        """
        update = SnapshotUpdate()
        by_model = _read_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for model in dict.fromkeys(record["model"] for record in records):
            empty = SnapshotFile(self.folder / _file_name(model, by_model), ModelSnapshot(model=model))
            file = by_model.get(model, empty)
            records_of_model = [record for record in records if record["model"] == model]
            content = self._renewed(file.content, records_of_model, update)
            if content != file.content:
                files.write(file.path, content.text())
                by_model[model] = SnapshotFile(file.path, content)  # takes the name from the models that follow
        return update

    def _renewed(self, before: ModelSnapshot, records: Sequence[CaseRecord], update: SnapshotUpdate) -> ModelSnapshot:
        """Return the snapshot with its new records, and list them in `update`."""
        cases = dict(before.cases)
        for record in records:
            case = record["case"]
            paired = [gate_record for gate_record in record["gates"] if not is_drift(gate_record)]
            if not record["gates"] or not all(gate_record["passed"] for gate_record in paired):
                update.refused.append(case)
                continue
            old = before.cases.get(case)
            cases[case] = self._accept(record, old)
            (update.new if old is None else update.kept if cases[case] == old else update.changed).append(case)
        return before.with_cases(cases, records)

    def _accept(self, record: CaseRecord, old: AcceptedCase | None) -> AcceptedCase:
        """Return the accepted case of a record that replaces `old`."""
        now = _accepted_case(record)
        if old is None or self.update != "new":
            return now
        # A metric that is gated now and was not then can be added, but not from other data.
        metrics = {**now.metrics, **old.metrics} if old.data == now.data else old.metrics
        return old.model_copy(update={"metrics": metrics})

    def _find(self, case: Case) -> AcceptedCase | None:
        model = self.models.get(case.build.model)
        return None if model is None else model.cases.get(case.id)


def load(folder: Path, update: Update = "none") -> Snapshot:
    """Read the snapshot in a folder.

    Args:
        folder: The folder; without files, or if it does not exist, nothing is accepted yet.
        update: Which results of this run are to be accepted.

    Raises:
        InputError: A file cannot be read, is no snapshot, or is of the same model as another.
    """
    return Snapshot(folder, {model: file.content for model, file in _read_folder(folder).items()}, update)


def key_of(description: Mapping[str, str]) -> str:
    """Return the key of a description: 12 hexadecimal digits."""
    return text_sha256(json.dumps(description, sort_keys=True))[:12]


def _accepted_case(record: CaseRecord) -> AcceptedCase:
    """Return the gated metrics of a record, if they are finite."""
    gated = {registry.canonical(gate_record["metric"]) for gate_record in record["gates"]}
    return AcceptedCase(
        data=key_of(record["data"]),
        environment=key_of(record["environment"]),
        metrics={
            metric_record["metric"]: AcceptedMetric(
                value=_rounded(metric_record["quantized"]),
                change=_rounded(metric_record["change"]),
                low=_rounded_bound(metric_record["low"]),
                high=_rounded_bound(metric_record["high"]),
                n=record["samples"],
            )
            for metric_record in record["metrics"]
            if metric_record["metric"] in gated
            and math.isfinite(metric_record["quantized"])
            and math.isfinite(metric_record["change"])
        },
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _rounded_bound(bound: float | None) -> float | None:
    return None if bound is None or not math.isfinite(bound) else _rounded(bound)


def _read_folder(folder: Path) -> dict[str, SnapshotFile]:
    """Return the file of each model."""
    by_model: dict[str, SnapshotFile] = {}
    for path in sorted(folder.glob("*.json")):
        content = _read(path)
        other = by_model.setdefault(content.model, SnapshotFile(path, content))
        if other.path != path:
            raise InputError(f"{path}: {other.path} is of {content.model} as well; remove one of them")
    return by_model


def _read(path: Path) -> ModelSnapshot:
    try:
        return ModelSnapshot.model_validate_json(files.read(path))
    except ValidationError as error:
        raise InputError(
            f"{path}: is no snapshot of version 1: {files.first_problem(error)}; restore it, or remove it and accept "
            f"with {UPDATE}=new"
        ) from None


def _file_name(model: str, by_model: Mapping[str, SnapshotFile]) -> str:
    """Return a name for the file of a new model."""
    stem = files.safe_name(model).strip("_") or "model"
    if any(file.path.stem == stem for file in by_model.values()):
        stem += f"-{text_sha256(model)[:6]}"
    return f"{stem}.json"
