"""Gates: a change held against its limits, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_qreliab.comparison import Change
from pytest_qreliab.config.thresholds import Gate, Inconclusive
from pytest_qreliab.metrics import registry
from pytest_qreliab.statistics.interval import Interval

Outcome = Literal["pass", "fail", "inconclusive"]

# A harm that equals its limit passes, and binary rounding of decimal fractions must not decide otherwise.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What became of a gate. Positive `harm` is worse; `gate.largest_harm` is what it may be at most.

    `outcome` is the statistical verdict, `passed` whether the test lets it pass: an inconclusive one is
    decided by the thresholds' `inconclusive` setting. `settling_n` is the number of in-distribution samples
    that would probably settle an inconclusive one.
    """

    gate: Gate
    outcome: Outcome
    passed: bool
    baseline: float
    quantized: float
    harm: float
    interval: Interval | None
    method: str
    settling_n: int | None
    problem: str


def judge(changes: Mapping[str, Change], gates: Iterable[Gate], n: int, inconclusive: Inconclusive) -> list[Verdict]:
    """The verdict of each gate, for changes measured on `n` in-distribution samples.

    A metric that was not measured, or is not finite in either model, fails.
    """
    return [_judge(changes.get(registry.canonical(gate.metric)), gate, n, inconclusive) for gate in gates]


def _judge(change: Change | None, gate: Gate, n: int, inconclusive: Inconclusive) -> Verdict:
    nan = float("nan")
    if change is None:
        return Verdict(gate, "fail", False, nan, nan, nan, None, "", None, "the benchmark does not measure it")
    harm, interval = _harm(change, gate)
    limit = gate.largest_harm

    def verdict(outcome: Outcome, passed: bool, settling_n: int | None = None, problem: str = "") -> Verdict:
        return Verdict(
            gate,
            outcome,
            passed,
            change.baseline,
            change.quantized,
            harm,
            interval,
            change.method,
            settling_n,
            problem,
        )

    finite = math.isfinite(change.baseline) and math.isfinite(change.quantized) and math.isfinite(harm)
    if not finite or change.problem:
        return verdict("fail", False, problem=change.problem or "not a finite number")
    within = harm <= limit + ROUNDING
    if interval is None:
        return verdict("pass" if within else "fail", within)
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return verdict("fail", False, problem="its interval is not finite")
    if interval.high <= limit + ROUNDING:
        return verdict("pass", True)
    if interval.low > limit + ROUNDING:
        return verdict("fail", False)
    passed = within if inconclusive == "estimate" else inconclusive == "pass"
    reach = interval.high - harm if within else harm - interval.low
    distance = abs(limit - harm)
    # The width of an interval falls with the square root of n.
    settling_n = math.ceil(round(n * (reach / distance) ** 2, 6)) if distance > ROUNDING else None
    return verdict("inconclusive", passed, settling_n)


def _harm(change: Change, gate: Gate) -> tuple[float, Interval | None]:
    """The delta turned so that positive is worse under this limit, and its interval."""
    delta, interval = change.delta, change.interval
    match gate.limit:
        case "max_rise":
            return delta, interval
        case "max_drop":
            return -delta, interval and Interval(-interval.high, -interval.low)
        case "max_change":
            return abs(delta), interval and _magnitude(interval)
        case "max_relative_change":
            base = abs(change.baseline)
            if base == 0:
                return (0.0 if delta == 0 else math.inf), None
            scaled = interval and _magnitude(interval)
            return abs(delta) / base, scaled and Interval(scaled.low / base, scaled.high / base)
        case "min":
            return gate.value - change.quantized, None
        case "max":
            return change.quantized - gate.value, None


def _magnitude(interval: Interval) -> Interval:
    """Bounds on |x| from bounds on x."""
    low, high = sorted((abs(interval.low), abs(interval.high)))
    return Interval(0.0 if interval.low <= 0 <= interval.high else low, high)
