"""Gates: changes held against their limits, and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pytest_qreliab.config.thresholds import LIMIT_TOLERANCE, Correction, Gate, Inconclusive, Policy
from pytest_qreliab.evaluation.measurement.comparison import NO_LOCAL, Change
from pytest_qreliab.evaluation.verdicts.accepted import AcceptedValues
from pytest_qreliab.metrics import registry
from pytest_qreliab.statistics import multiple_testing
from pytest_qreliab.statistics.interval import Bounds, Interval

Outcome = Literal["pass", "fail", "inconclusive"]

SMALLEST_P = 1e-12
NAN = float("nan")
MOST_TIMES = 100  # the samples: an estimate that so many would not tell from its limit stands at it
NOT_MEASURED = "the benchmark does not measure it"
NOT_FINITE = "not a finite number"

# How p-values are adjusted, and whether the level is that of all gates of the case together, or of each.
STEPWISE: dict[Correction, tuple[Callable[[list[float]], npt.NDArray[np.float64]], bool]] = {
    "holm": (multiple_testing.holm, True),
    "benjamini-hochberg": (multiple_testing.benjamini_hochberg, False),
}


@dataclass(frozen=True, kw_only=True)
class JudgingRule:
    """The rule by which the gates of a case are judged."""

    error_probability: float  # one-sided, of each interval
    policy: Policy  # says how to correct for many gates, and what an inconclusive outcome becomes
    samples: int  # in-distribution samples that the changes were measured on


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict of one gate."""

    gate: Gate
    outcome: Outcome  # the statistical verdict
    passed: bool  # whether the test passes; the policy decides it for an inconclusive outcome
    baseline: float
    quantized: float
    harm: float  # positive is worse; `gate.largest_harm` is the most that passes
    interval: Interval | None = None  # bounds on the harm
    method: str  # how the interval was computed
    samples_to_settle: int | None = None  # in-distribution samples that would probably settle an inconclusive outcome,
    # None if that is more than 100 times as many
    problem: str = ""  # why the gate cannot be judged
    accepted: float | None = None  # the quantized value in a snapshot, for a gate on the drift from it
    kernel_spread: float | None = None  # how far another attention kernel moves the quantized value, of a drift


def judge(changes: Mapping[str, Change], gates: Sequence[Gate], rule: JudgingRule) -> list[Verdict]:
    """Judge the gates of a case on the change from full precision.

    A metric fails if it was not measured, or is not finite in either model. With a stepwise correction the p-values of
    all gates decide together. The intervals are then those that each gate would have alone.

    Args:
        changes: The change of each metric, by its canonical name.
        gates: The gates of one case, none of them on the drift.
        rule: The error probability, the policy and the number of samples.

    Returns:
        One verdict for each gate, in the order of the gates.

    Raises:
        ValueError: A gate is on the drift.
    """
    harms = [_measure(gate, changes.get(registry.canonical(gate.metric)), rule.error_probability) for gate in gates]
    stepwise = rule.policy.correction in STEPWISE
    outcomes = _stepwise_outcomes(harms, rule) if stepwise else [_outcome(harm) for harm in harms]
    return [_verdict(harm, outcome, rule) for harm, outcome in zip(harms, outcomes, strict=True)]


def not_shown(changes: Mapping[str, Change], gates: Sequence[Gate]) -> dict[str, str]:
    """Return which metrics the models do not show, and why.

    NaN and infinity are no such reason: they fail.

    Args:
        changes: The change of each metric, by its canonical name.
        gates: The gates of one case.

    Returns:
        The reasons by the metric of the gates.
    """
    found = {gate.metric: _known(gate, changes.get(registry.canonical(gate.metric))) for gate in gates}
    return {metric: change.problem for metric, change in found.items() if change.missing}


def judge_drift(changes: Mapping[str, Change], gates: Sequence[Gate], accepted: AcceptedValues) -> list[Verdict]:
    """Judge the gates of a case on the drift from accepted values.

    The estimate decides, because accepted values have no samples to pair with. A metric fails if it was not measured,
    or if no value of it is accepted. A gate is inconclusive if the accepted value was measured on other data.

    Args:
        changes: The change of each metric, by its canonical name.
        gates: The gates of one case on the drift.
        accepted: The values that the snapshot holds of the case.

    Returns:
        One verdict for each gate, in the order of the gates.
    """
    return [_drift_verdict(gate, changes.get(registry.canonical(gate.metric)), accepted) for gate in gates]


def _drift_verdict(gate: Gate, change: Change | None, accepted: AcceptedValues) -> Verdict:
    before = accepted.values.get(registry.canonical(gate.metric))
    change = _known(gate, change)
    baseline, after = change.baseline, change.quantized
    outcome: Outcome = "fail"
    harm, problem = NAN, ""
    if not math.isfinite(after):
        problem = _problem(change)
    elif before is None and accepted.renewing:
        before, harm, outcome = after, 0.0, "pass"
    elif before is None:
        problem = f"nothing is accepted in {accepted.where}; accept it with --qreliab-update=new"
    else:
        harm = registry.lookup(gate.metric).harm(after - before)
        outcome = "pass" if harm <= gate.value + LIMIT_TOLERANCE else "fail"
        if not accepted.comparable:
            outcome, problem = "inconclusive", f"other data were measured for {accepted.where}"
    return Verdict(
        gate=gate,
        outcome=outcome,
        passed=outcome != "fail",
        baseline=baseline,
        quantized=after,
        harm=harm,
        method="drift",
        problem=problem,
        accepted=before,
    )


@dataclass(frozen=True, kw_only=True)
class _Harm:
    """A change turned so that positive is worse under a gate."""

    gate: Gate
    change: Change
    value: float
    bounds: Bounds | None = None  # on the value, at a one-sided error probability
    interval: Interval | None = None  # the bounds at the error probability of the rule
    problem: str = ""

    @property
    def limit(self) -> float:
        return self.gate.largest_harm + LIMIT_TOLERANCE

    def p_value(self, shows: Callable[[Interval, float], bool]) -> float:
        """Return the least error probability below one half at which the interval shows something, or 1."""
        if self.bounds is None or self.problem or not shows(self.bounds(0.5 - LIMIT_TOLERANCE), self.limit):
            return 1.0
        low, high = math.log(SMALLEST_P), math.log(0.5)
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (low, middle) if shows(self.bounds(math.exp(middle)), self.limit) else (middle, high)
        return math.exp(high)


def _measure(gate: Gate, change: Change | None, alpha: float) -> _Harm:
    change = _known(gate, change)
    value, bounds = _as_harm(change, gate)
    if change.problem or not all(map(math.isfinite, (change.baseline, change.quantized, value))):
        return _Harm(gate=gate, change=change, value=value, problem=_problem(change))
    interval = None if bounds is None else bounds(alpha)
    problem = "" if interval is None or all(map(math.isfinite, interval)) else "its interval is not finite"
    return _Harm(gate=gate, change=change, value=value, bounds=bounds, interval=interval, problem=problem)


def _known(gate: Gate, change: Change | None) -> Change:
    """Return the change, or one that says why there is none."""
    if change is not None:
        return change
    if "local" in registry.lookup(gate.metric).needs:
        return Change.not_shown(gate.metric, NO_LOCAL)
    return Change(metric=gate.metric, baseline=NAN, quantized=NAN, problem=NOT_MEASURED)


def _problem(change: Change) -> str:
    """Say why a change is not finite."""
    skip = "; or write `where_missing: skip` beside the limit" if change.missing else ""
    return (change.problem or NOT_FINITE) + skip


def _outcome(harm: _Harm) -> Outcome:
    """Return what the interval says, or the estimate if there is none. Written so that NaN fails."""
    if harm.problem:
        return "fail"
    low, high = harm.interval or (harm.value, harm.value)
    if high <= harm.limit:
        return "pass"
    return "fail" if low > harm.limit else "inconclusive"


def _stepwise_outcomes(harms: Sequence[_Harm], rule: JudgingRule) -> list[Outcome]:
    """Return what the p-values of all gates say together, or the estimate of a gate that has none."""
    adjust, level_of_all = STEPWISE[rule.policy.correction]
    level = rule.error_probability * (len(harms) if level_of_all else 1)
    beyond = adjust([harm.p_value(lambda interval, limit: interval.low > limit) for harm in harms])
    within = adjust([harm.p_value(lambda interval, limit: interval.high <= limit) for harm in harms])

    def decide(harm: _Harm, p_beyond: float, p_within: float) -> Outcome:
        if harm.interval is None or harm.problem:
            return _outcome(harm)
        if p_beyond <= level:
            return "fail"
        return "pass" if p_within <= level else "inconclusive"

    return list(map(decide, harms, beyond, within))


def _verdict(harm: _Harm, outcome: Outcome, rule: JudgingRule) -> Verdict:
    undecided = outcome == "inconclusive"
    return Verdict(
        gate=harm.gate,
        outcome=outcome,
        passed=_lets_pass(harm, rule.policy.inconclusive) if undecided else outcome == "pass",
        baseline=harm.change.baseline,
        quantized=harm.change.quantized,
        harm=harm.value,
        interval=harm.interval,
        method=harm.change.method,
        samples_to_settle=_samples_to_settle(harm, rule.samples) if undecided else None,
        problem=harm.problem,
    )


def _lets_pass(harm: _Harm, inconclusive: Inconclusive) -> bool:
    return harm.value <= harm.limit if inconclusive == "estimate" else inconclusive == "pass"


def _samples_to_settle(harm: _Harm, samples: int) -> int | None:
    distance = abs(harm.gate.largest_harm - harm.value)
    if harm.interval is None or distance <= 2 * LIMIT_TOLERANCE:
        return None
    within = harm.value <= harm.limit
    reach = harm.interval.high - harm.value if within else harm.value - harm.interval.low
    # The width of an interval falls with the square root of n.
    times = (reach / distance) ** 2
    return math.ceil(round(samples * times, 6)) if times <= MOST_TIMES else None


def _as_harm(change: Change, gate: Gate) -> tuple[float, Bounds | None]:
    """Return the delta turned so that positive is worse under this limit, and its bounds."""
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
    """Return bounds on |x| from bounds on x."""
    low, high = sorted((abs(interval.low), abs(interval.high)))
    return Interval(0.0 if interval.low <= 0 <= interval.high else low, high)
