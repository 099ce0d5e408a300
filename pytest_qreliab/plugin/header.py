"""The lines at the head of pytest's output: what the run will do, and what it cannot show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_qreliab.config.document import display_path
from pytest_qreliab.data.wording import counted
from pytest_qreliab.models.description import in_words
from pytest_qreliab.report.queries import describe_skipped, describe_training

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.planning.plan import Plan
    from pytest_qreliab.evaluation.planning.shards import Shard
    from pytest_qreliab.report.snapshot import Snapshot

UPDATES = {"none": "", "new": "; what it has not is accepted", "all": "; all of it is accepted anew"}


def header_lines(plan: Plan, *, shard: Shard | None = None, snapshot: Snapshot | None = None) -> list[str]:
    """Return the announcement of a run.

    Args:
        plan: What the run may do.
        shard: The part of the plan that this machine runs, if it is not all of it.
        snapshot: The accepted results that the run is held against, if there are any.
    """
    lines = [_cases(plan), _gates(plan)]
    for name, description in plan.descriptions.items():
        if description.facts:
            lines.append(f"qreliab: {name}: {in_words(description.facts)}")
    training = describe_training((case.build.quantizer, plan.training[case].words) for case in plan.cases)
    lines += [f"qreliab: {line}" for line in training]
    if snapshot is not None:
        drift_gates = counted(sum(map(len, plan.drift.values())), "gate")
        lines.append(f"qreliab: {drift_gates} on the drift from {snapshot.folder}{UPDATES[snapshot.update]}")
    if shard is not None:
        here = sum(case in shard.parts for case in plan.cases)
        lines.append(f"qreliab: {shard}: {here} of {len(plan.cases)} cases")
    if plan.figures is not None:
        lines.append(f"qreliab: figures go to {display_path(plan.figures)}")
    skipped = {case.id: plan.skipped[case] for case in plan.cases}
    lines += [f"qreliab: {line}" for line in describe_skipped(skipped)]
    lines += [f"qreliab: {where}: this override matches no case of the run" for where in _unmatched(plan)]
    warnings = dict.fromkeys(text for case in plan.cases for text in plan.warnings(case))
    return [*lines, *(f"qreliab: warning: {text}" for text in warnings), *underpowered_lines(plan)]


def underpowered_lines(plan: Plan) -> list[str]:
    """Return a warning of the gates that cannot show what they are for, each with the samples that it would need."""
    from pytest_qreliab.evaluation.verdicts import power

    lines: dict[str, None] = {}  # a set in order: cases of one benchmark often share a line
    for weak in power.find_underpowered(plan):
        samples = weak.samples
        enough = "no number of samples" if weak.times == float("inf") else f"about {weak.times * samples:,.0f}"
        lines[
            f"qreliab:   {weak.gate.metric} {weak.gate.limit} {weak.gate.value:g}: {samples:,.0f} samples of "
            f"{weak.case.benchmark} show {weak.detectable:.2g} at best; {enough} would do"
        ] = None
    head = "qreliab: underpowered, a harmless case may well be inconclusive (spread as of a CLIP at w4a8):"
    return [head, *lines] if lines else []


def _cases(plan: Plan) -> str:
    axes = [
        dict.fromkeys(case.build.model for case in plan.cases),
        dict.fromkeys(case.quantization for case in plan.cases),
        dict.fromkeys(case.benchmark for case in plan.cases),
    ]
    return f"qreliab: {counted(len(plan.cases), 'case')}: " + " x ".join(", ".join(axis) for axis in axes)


def _gates(plan: Plan) -> str:
    policies = dict.fromkeys(
        f"{display_path(thresholds.document.path)}, {thresholds.policy.confidence:.0%} confidence over all of them"
        for thresholds in plan.thresholds.values()
    )
    gates = counted(sum(map(len, plan.gates.values())), "gate")
    kernels = ", deterministic" if plan.deterministic else ""
    return f"qreliab: {gates} of {', '.join(policies)}, device {plan.device}{kernels}"


def _unmatched(plan: Plan) -> list[str]:
    """Return the places of the overrides that hold for no case of the plan."""
    policies = {thresholds.document.path: thresholds for thresholds in plan.thresholds.values()}
    return [where for thresholds in policies.values() for where in thresholds.unmatched(plan.cases)]
