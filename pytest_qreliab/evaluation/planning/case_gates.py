"""The gates of each case, judged or skipped as the thresholds say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pytest_qreliab.config.cases import Case
from pytest_qreliab.config.thresholds import Gate, Thresholds
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning import recorded_checks
from pytest_qreliab.evaluation.planning.checks import lack_of_block, lack_of_data
from pytest_qreliab.evaluation.planning.parse_settings import ParsedSettings

NO_SNAPSHOT = "its only limit is max_drift, which needs --qreliab-snapshot=DIR"


@dataclass(frozen=True)
class CaseGates:
    """The gates of one case."""

    judged: tuple[Gate, ...]
    skipped: Mapping[str, str]  # why the others are not, by metric


def resolve_gates(
    thresholds: Mapping[Case, Thresholds], parsed: ParsedSettings, data: Mapping[str, Dataset], *, with_drift: bool
) -> dict[Case, CaseGates]:
    """Return the gates of each case.

    Args:
        thresholds: The thresholds of each case.
        parsed: The settings of the run.
        data: The data of each benchmark.
        with_drift: Whether there are accepted values, so that gates on the drift from them are judged.

    Raises:
        InputError: A gate cannot be judged and may not be skipped, or nothing of a case can be judged. The message has
            a line for each such gate, with its file and line.
    """
    resolved: dict[Case, CaseGates] = {}
    refused: dict[tuple[str, str], Gate] = {}  # by metric, and what it lacks
    blocks = cache(lambda model: parsed.models[model].describe().blocks)
    for case, policy in thresholds.items():
        gates = policy.gates(case)
        usable = [gate for gate in gates if with_drift or not gate.is_drift]
        lacks = dict.fromkeys((gate.metric for gate in gates), NO_SNAPSHOT)
        lacks.update(dict.fromkeys((gate.metric for gate in usable), ""))
        lacks = {
            metric: lack_of_data(metric, parsed.benchmarks[case.benchmark], data[case.benchmark])
            or recorded_checks.lack_of_outputs(metric, case, parsed.recordings, data[case.benchmark])
            or lack_of_block(metric, case.build.model, blocks)
            or lack
            for metric, lack in lacks.items()
        }
        missing = [gate for gate in gates if lacks[gate.metric]]
        for gate in missing:
            if not gate.skippable:
                refused.setdefault((gate.metric, lacks[gate.metric]), gate)
        judged = tuple(gate for gate in usable if not lacks[gate.metric])
        if not judged and not refused:
            where, why = policy.document.where(("gates",)), "; ".join(f"{name}: {lack}" for name, lack in lacks.items())
            raise InputError(f"{where}: none of the gates can be judged for {case.id}: {why}")
        recorded_checks.check_samples(judged, case, parsed.recordings, data[case.benchmark])
        resolved[case] = CaseGates(judged, {gate.metric: lacks[gate.metric] for gate in missing})
    if refused:
        raise InputError("\n".join(_refusal(gate, lack, parsed) for (_, lack), gate in refused.items()))
    return resolved


def _refusal(gate: Gate, lack: str, parsed: ParsedSettings) -> str:
    """Say why a gate cannot be judged, and what can be done."""
    text = f"{gate.where}: {gate.metric} cannot be judged: {lack}; or write `where_missing: skip` beside its limit"
    if len(parsed.benchmarks) > 1:
        text += ", or have it under `overrides:` for the benchmarks that it is of"
    return text
