"""Gates: a change held against its limits, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pytest_qreliab.config.thresholds import LIMIT_TOLERANCE, Correction, Gate, Inconclusive, Policy
from pytest_qreliab.evaluation.measurement.comparison import Change
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedValues
from pytest_qreliab.metrics import registry
from pytest_qreliab.statistics import multiple_testing
from pytest_qreliab.statistics.interval import Bounds, Interval

Outcome = Literal["pass", "fail", "inconclusive"]

SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Verdict:
    """What became of a gate. Positive `harm` is worse; `gate.largest_harm` is what it may be at most.

    `outcome` is the statistical verdict, `passed` whether the test lets it pass: an inconclusive one is
    decided by the thresholds' `inconclusive` setting. `samples_to_settle` is the number of in-distribution samples
    that would probably settle an inconclusive one. `accepted` is the quantized value that a snapshot holds, of a gate
    on the drift from it.
    """

    gate: Gate
    outcome: Outcome
    passed: bool
    baseline: float
    quantized: float
    harm: float
    interval: Interval | None
    method: str
    samples_to_settle: int | None
    problem: str
    accepted: float | None = None


def judge(changes: Mapping[str, Change], gates: Sequence[Gate], n: int, alpha: float, policy: Policy) -> list[Verdict]:
    """The verdict of each gate, for changes measured on `n` in-distribution samples.

    `alpha` is the one-sided error probability of each interval. Where the correction goes step by step, the p-values
    of all these gates decide together, and the intervals are what they are without the others. A metric that was not
    measured, or is not finite in either model, fails.
    """
    measured = [_measure(gate, changes.get(registry.canonical(gate.metric)), alpha) for gate in gates]
    outcomes = [_outcome(harm) for harm in measured]
    if policy.correction in STEPWISE:
        adjust, of_all = STEPWISE[policy.correction]
        level = alpha * len(gates) if of_all else alpha
        beyond = adjust([harm.p_value(lambda found, limit: found.low > limit) for harm in measured])
        within = adjust([harm.p_value(lambda found, limit: found.high <= limit) for harm in measured])
        for index, harm in enumerate(measured):
            if harm.interval is not None and not harm.problem:
                outcomes[index] = (
                    "fail" if beyond[index] <= level else "pass" if within[index] <= level else "inconclusive"
                )
    return [_verdict(harm, outcome, n, policy.inconclusive) for harm, outcome in zip(measured, outcomes, strict=True)]


def judge_drift(changes: Mapping[str, Change], gates: Sequence[Gate], accepted: AcceptedValues) -> list[Verdict]:
    """The verdict of each gate on the drift from accepted values: by the estimate, as those have no samples to pair.

    A metric that was not measured fails, and so does one of which nothing is accepted. Where other data were measured
    the gate tells nothing, and is inconclusive.
    """
    return [_drifted(gate, changes.get(registry.canonical(gate.metric)), accepted) for gate in gates]


def _drifted(gate: Gate, change: Change | None, accepted: AcceptedValues) -> Verdict:
    nan = float("nan")
    before, after = accepted.values.get(registry.canonical(gate.metric)), nan if change is None else change.quantized
    baseline = nan if change is None else change.baseline
    outcome: Outcome = "fail"
    harm, problem = nan, ""
    if change is None or not math.isfinite(after):
        problem = NOT_MEASURED if change is None else change.problem or "not a finite number"
    elif before is None and accepted.renewing:
        before, harm, outcome = after, 0.0, "pass"
    elif before is None:
        problem = f"nothing is accepted in {accepted.where}; accept it with --qreliab-update=new"
    else:
        harm = registry.lookup(gate.metric).harm(after - before)
        outcome = "pass" if harm <= gate.value + LIMIT_TOLERANCE else "fail"
        if not accepted.comparable:
            outcome, problem = "inconclusive", f"other data were measured for {accepted.where}"
    return Verdict(gate, outcome, outcome != "fail", baseline, after, harm, None, "drift", None, problem, before)


NOT_MEASURED = "the benchmark does not measure it"

# How p-values are adjusted, and whether the level is that of all gates of the case together, or of each.
STEPWISE: dict[Correction, tuple[Callable[[list[float]], npt.NDArray[np.float64]], bool]] = {
    "holm": (multiple_testing.holm, True),
    "benjamini-hochberg": (multiple_testing.benjamini_hochberg, False),
}


@dataclass(frozen=True)
class _Harm:
    """A change turned so that positive is worse under a gate, with its interval, if any, and the limit to be held."""

    gate: Gate
    change: Change
    value: float
    bounds: Bounds | None
    interval: Interval | None
    limit: float
    problem: str

    def p_value(self, shown: Callable[[Interval, float], bool]) -> float:
        """The least error probability of an interval at which `shown` holds, 1 where it does not below one half."""
        if self.bounds is None or self.problem or not shown(self.bounds(0.5 - LIMIT_TOLERANCE), self.limit):
            return 1.0
        low, high = math.log(SMALLEST_P), math.log(0.5)
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (low, middle) if shown(self.bounds(math.exp(middle)), self.limit) else (middle, high)
        return math.exp(high)


def _measure(gate: Gate, change: Change | None, alpha: float) -> _Harm:
    limit = gate.largest_harm + LIMIT_TOLERANCE
    if change is None:
        nan = float("nan")
        local = "local" in registry.lookup(gate.metric).needs
        problem = "the image tower shows no local features" if local else NOT_MEASURED
        return _Harm(gate, Change(gate.metric, nan, nan, None, "", problem), nan, None, None, limit, problem)
    harm, bounds = _turned(change, gate)
    if change.problem or not all(map(math.isfinite, (change.baseline, change.quantized, harm))):
        return _Harm(gate, change, harm, None, None, limit, change.problem or "not a finite number")
    interval = None if bounds is None else bounds(alpha)
    bad = interval is not None and not all(map(math.isfinite, interval))
    return _Harm(gate, change, harm, bounds, interval, limit, "its interval is not finite" if bad else "")


def _outcome(harm: _Harm) -> Outcome:
    """What the interval says, or, where there is none, the estimate. Written so that NaN fails."""
    if harm.problem:
        return "fail"
    low, high = harm.interval or (harm.value, harm.value)
    if high <= harm.limit:
        return "pass"
    return "fail" if low > harm.limit else "inconclusive"


def _verdict(harm: _Harm, outcome: Outcome, n: int, inconclusive: Inconclusive) -> Verdict:
    passed, samples_to_settle = outcome == "pass", None
    if outcome == "inconclusive":
        within = harm.value <= harm.limit
        passed = within if inconclusive == "estimate" else inconclusive == "pass"
        distance = abs(harm.gate.largest_harm - harm.value)
        if harm.interval is not None and distance > 2 * LIMIT_TOLERANCE:
            reach = harm.interval.high - harm.value if within else harm.value - harm.interval.low
            # The width of an interval falls with the square root of n.
            samples_to_settle = math.ceil(round(n * (reach / distance) ** 2, 6))
    change = harm.change
    return Verdict(
        harm.gate,
        outcome,
        passed,
        change.baseline,
        change.quantized,
        harm.value,
        harm.interval,
        change.method,
        samples_to_settle,
        harm.problem,
    )


def _turned(change: Change, gate: Gate) -> tuple[float, Bounds | None]:
    """The delta turned so that positive is worse under this limit, and its bounds."""
    delta, bounds = change.delta, change.bounds
    match gate.limit:
        case "max_rise":
            return delta, bounds
        case "max_drop":
            return -delta, bounds and (lambda alpha: Interval(*(-end for end in bounds(alpha)[::-1])))
        case "max_change":
            return abs(delta), bounds and (lambda alpha: _magnitude(bounds(alpha)))
        case "max_relative_change":
            base = abs(change.baseline)
            if base == 0:
                return (0.0 if delta == 0 else math.inf), None
            relative = bounds and (lambda alpha: Interval(*(end / base for end in _magnitude(bounds(alpha)))))
            return abs(delta) / base, relative
        case "min":
            return gate.value - change.quantized, None
        case "max":
            return change.quantized - gate.value, None
        case "max_drift":
            raise ValueError("a gate on the drift is judged by `judge_drift`")


def _magnitude(interval: Interval) -> Interval:
    """Bounds on |x| from bounds on x."""
    low, high = sorted((abs(interval.low), abs(interval.high)))
    return Interval(0.0 if interval.low <= 0 <= interval.high else low, high)
