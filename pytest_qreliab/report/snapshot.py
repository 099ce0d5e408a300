"""Snapshots: the results of an accepted release, one JSON file per model, that later runs are held against."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.settings import Setting
from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedValues
from pytest_qreliab.metrics import registry
from pytest_qreliab.report import files
from pytest_qreliab.report.records import CaseRecord, is_drift

Update = Literal["none", "new", "all"]

DIGITS = 6  # of a number in a file: more would change with the number of threads
UPDATE, IN_CI = "--qreliab-update", "ci"


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
        """As it is written: the same for the same content, a number a line."""
        return json.dumps(self.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n"


@dataclass(frozen=True)
class SnapshotUpdate:
    """The cases that were accepted for the first time, those with other values than before, those that kept theirs, and
    those that were not accepted, as a gate fails."""

    new: Sequence[str]
    changed: Sequence[str]
    kept: Sequence[str]
    refused: Sequence[str]

    def lines(self, where: str) -> list[str]:
        """What became of the cases, in words."""
        counts = {"new": self.new, "changed": self.changed, "as before": self.kept}
        told = ", ".join(f"{len(cases)} {what}" for what, cases in counts.items() if cases) or "nothing"
        return [f"accepted into {where}: {told}", *(f"not accepted, as a gate fails: {case}" for case in self.refused)]


@dataclass(frozen=True)
class Snapshot:
    """What was accepted, by model, and which of it is to be accepted anew."""

    folder: Path
    models: Mapping[str, ModelSnapshot]
    update: Update = "none"

    def accepted(self, case: Case, data: Mapping[str, str]) -> AcceptedValues:
        """The values that a case is held against, which is measured on that data now."""
        known = self._known(case)
        if known is None or self.update == "all":
            return AcceptedValues({}, str(self.folder), self.update != "none")
        values = {name: metric.value for name, metric in known.metrics.items()}
        same = known.data == key_of(data)
        return AcceptedValues(values, str(self.folder), same and self.update == "new", same)

    def differences(self, case: Case, data: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
        """What a case was accepted with and is not measured with now, field by field."""
        known = self._known(case)
        if known is None or self.update == "all":
            return []
        of_model = self.models[case.build.model]
        return [
            f"{what}: {name} {before.get(name, 'none')} was accepted, {now.get(name, 'none')} is there now"
            for what, before, now in (
                (f"data of {case.benchmark}", of_model.data.get(known.data, {}), data),
                ("environment", of_model.environments.get(known.environment, {}), environment),
            )
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]

    def unused(self, cases: Collection[str]) -> list[str]:
        """The accepted cases that are not among those."""
        return sorted(case for of_model in self.models.values() for case in of_model.cases if case not in cases)

    def renew(self, entries: Sequence[CaseRecord]) -> SnapshotUpdate:
        """Write what was measured and is to be accepted. Raises OSError, and InputError for files that are damaged."""
        new: list[str] = []
        changed: list[str] = []
        kept: list[str] = []
        refused: list[str] = []
        there = _files(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for model in dict.fromkeys(entry["model"] for entry in entries):
            path, before = there.get(model, (self.folder / _file_name(model, there), ModelSnapshot(model=model)))
            cases = dict(before.cases)
            data, environments = dict(before.data), dict(before.environments)
            for entry in (entry for entry in entries if entry["model"] == model):
                case = entry["case"]
                now = _case(entry)
                old = cases.get(case)
                if old is not None and self.update == "new":
                    # A metric that is gated now and was not then can be added, but not from other data.
                    same = old.data == now.data
                    metrics = {**now.metrics, **old.metrics} if same else old.metrics
                    now = old.model_copy(update={"metrics": metrics})
                # That it is not as it was accepted is what accepting is for.
                if not all(gate["passed"] for gate in entry["gates"] if not is_drift(gate)):
                    refused.append(case)
                    continue
                (new if old is None else kept if now == old else changed).append(case)
                cases[case] = now
                data.setdefault(now.data, entry["data"])
                environments.setdefault(now.environment, entry["environment"])
            used, with_ = ({getattr(of, table) for of in cases.values()} for table in ("data", "environment"))
            after = ModelSnapshot(
                model=model,
                data={key: of for key, of in data.items() if key in used},
                environments={key: of for key, of in environments.items() if key in with_},
                cases=cases,
            )
            if after != before:
                files.write(path, after.text())
        return SnapshotUpdate(new, changed, kept, refused)

    def _known(self, case: Case) -> AcceptedCase | None:
        of_model = self.models.get(case.build.model)
        return None if of_model is None else of_model.cases.get(case.id)


def _case(entry: CaseRecord) -> AcceptedCase:
    gated = {registry.canonical(gate["metric"]) for gate in entry["gates"]}
    return AcceptedCase(
        data=key_of(entry["data"]),
        environment=key_of(entry["environment"]),
        metrics={
            of["metric"]: AcceptedMetric(
                value=_rounded(of["quantized"]),
                change=_rounded(of["change"]),
                low=_bound(of["low"]),
                high=_bound(of["high"]),
                n=entry["samples"],
            )
            for of in entry["metrics"]
            if of["metric"] in gated and math.isfinite(of["quantized"]) and math.isfinite(of["change"])
        },
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _bound(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _rounded(value)


def key_of(described: Mapping[str, str]) -> str:
    """The key of a description in a file's table: 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


# Files and options


def select(folder: Setting, update: Setting) -> Snapshot | None:
    """The snapshot of the settings. Raises InputError for what cannot be read or is refused."""
    (value,) = folder.values(many=False)
    wanted = _update(update)
    if value.text == "none":
        if wanted != "none":
            raise InputError(f"{update.origin}: there is no snapshot to update; name one with --qreliab-snapshot=DIR")
        return None
    path = Path(value.text).expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"{value.origin}: {path} is a file; give a folder, which need not exist yet")
    if wanted == "none" and not path.exists():
        raise InputError(f"{value.origin}: {path} does not exist; accept this run's results with {UPDATE}=new")
    return load(path, wanted)


def _update(setting: Setting) -> Update:
    texts = [value.text for value in setting.values(many=True)]
    wanted = [text for text in texts if text != IN_CI]
    if len(wanted) != 1 or wanted[0] not in ("none", "new", "all"):
        error = unknown("update", setting.text, ("none", "new", "all"))
        raise InputError(f"{setting.origin}: {error}; with ,{IN_CI} behind it also where the variable CI is set")
    in_ci = os.environ.get("CI", "").strip().lower() not in ("", "0", "false", "no")
    if wanted[0] != "none" and in_ci and IN_CI not in texts:
        raise InputError(
            f"{setting.origin}: nothing is accepted in CI (the variable CI is set) by mistake: accept where you can "
            f"look at the changes and commit them, or write {UPDATE}={wanted[0]},{IN_CI}"
        )
    return wanted[0]  # type: ignore[return-value]


def load(folder: Path, update: Update = "none") -> Snapshot:
    """The snapshot in a folder. Raises InputError for a file that cannot be read or is none."""
    return Snapshot(folder, {name: found for name, (_, found) in _files(folder).items()}, update)


def _files(folder: Path) -> dict[str, tuple[Path, ModelSnapshot]]:
    found: dict[str, tuple[Path, ModelSnapshot]] = {}
    for path in sorted(folder.glob("*.json")):
        of_model = _read(path)
        if of_model.model in found:
            raise InputError(f"{path}: {found[of_model.model][0]} is of {of_model.model} as well; remove one of them")
        found[of_model.model] = path, of_model
    return found


def _read(path: Path) -> ModelSnapshot:
    try:
        return ModelSnapshot.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(
            f"{path}: is no snapshot of version 1: {what}; restore it, or remove it and accept with {UPDATE}=new"
        ) from None


def _file_name(model: str, taken: Mapping[str, tuple[Path, ModelSnapshot]]) -> str:
    stem = re.sub(r"[^\w.+-]+", "_", model, flags=re.ASCII).strip("_") or "model"
    if any(path.stem == stem for path, _ in taken.values()):
        stem += f"-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
    return f"{stem}.json"
