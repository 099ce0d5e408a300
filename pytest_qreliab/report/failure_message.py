"""The message of a failed test.

It holds all that is needed to judge the gates and to repeat the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_qreliab.config.text_forms import printable
from pytest_qreliab.metrics import registry
from pytest_qreliab.report.formatting import number

if TYPE_CHECKING:
    from pytest_qreliab.evaluation.verdicts.gates import Verdict


def explain(case: str, violated: Sequence[Verdict], *, gates: int, samples: int, alpha: float, repeat: str) -> str:
    """Return the message of a failed test.

    It has a headline, a paragraph for each violated gate, and a command.

    Args:
        case: The id of the case.
        violated: The verdicts of the violated gates.
        gates: The number of gates of the test, whether violated or not.
        samples: The number of in-distribution samples.
        alpha: The error probability of each bound.
        repeat: The command that repeats the test.
    """
    metrics = printable(", ".join(dict.fromkeys(verdict.gate.metric for verdict in violated)))
    lines = [f"{metrics}: {len(violated)} of {gates} gates failed", f"  case: {case}, {samples} samples"]
    for verdict in violated:
        lines += ["", *map(printable, _paragraph(verdict, alpha))]
    return "\n".join([*lines, "", f"  repeat: {repeat}"])


def _paragraph(verdict: Verdict, alpha: float) -> list[str]:
    """Return the lines on one gate."""
    gate = verdict.gate
    lines = [
        f"  {gate.metric} ({registry.lookup(gate.metric).help})",
        f"    baseline   {number(verdict.baseline)}",
        *([] if verdict.accepted is None else [f"    accepted   {number(verdict.accepted)}"]),
        f"    quantized  {number(verdict.quantized)}",
    ]
    if verdict.problem:
        lines.append(f"    problem    {verdict.problem}")
    else:
        interval = verdict.interval
        bounds = "" if interval is None else f", interval {number(interval.low)} to {number(interval.high)}"
        lines.append(f"    harm       {number(verdict.harm)}{bounds}")
        if interval is not None:
            lines.append(f"    method     {verdict.method}; each bound holds with {1 - alpha:.2%} confidence")
        if verdict.kernel_spread is not None:
            lines.append(f"    kernels    another attention kernel moves it by {number(verdict.kernel_spread)}")
        if verdict.outcome == "inconclusive":
            n = verdict.samples_to_settle
            settle = "the estimate stands at the limit" if n is None else f"about {n} samples would settle it"
            lines.append(f"    verdict    inconclusive: the interval holds the limit; {settle}")
    lines.append(f"    limit      {gate.limit} {gate.value:g}, {gate.where}")
    return lines
