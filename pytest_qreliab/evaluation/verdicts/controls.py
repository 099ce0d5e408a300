"""Why a metric moved: a quantized model beside controls that err as much as it does, but not by rounding.

`lowrank` filters the spectra of the weights, `noise` disturbs them. A control accounts for a change if it makes one so
alike that what is left, the quantized model less the control, is less than half of it; the interval of that decides.
Noise is drawn several times, since one draw may do by chance what another does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t

from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.measurement.comparison import Change, compare
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers.controls import Kind
from pytest_qreliab.statistics.interval import Interval

Conclusion = Literal["explained by spectral filtering", "by noise of that size", "by neither", "cannot tell at this n"]

HALF = 0.5
ANOTHER_DRAW = 0.05  # the probability that one more draw is as far from the others as is asked for
TOLERANCE = 0.005  # of the residual-to-signal ratio, when the strength of a control is sought
ATTEMPTS = 40


@dataclass(frozen=True)
class Effect:
    """A change from full precision, and its interval."""

    change: float
    interval: Interval


@dataclass(frozen=True)
class Explanation:
    """One metric: how far the quantized model and each control move it, and what that says."""

    metric: str
    quantized: Effect
    controls: Mapping[Kind, Effect]
    conclusion: Conclusion


@dataclass(frozen=True)
class ControlFindings:
    """What the controls of a case show, which have its weights' errors (`weights`) or its features' (`features`).

    `residuals` are the residual-to-signal ratios of the features of the quantized model and of the controls; `problem`
    says why there are none.
    """

    matched: str
    residuals: Mapping[str, float]
    explanations: tuple[Explanation, ...] = ()
    problem: str = ""


def explain(
    baseline: Measurement,
    quantized: Measurement,
    controls: Mapping[Kind, Sequence[Measurement]],
    metrics: Collection[str],
    alpha: float,
) -> list[Explanation]:
    """What accounts for the change of each metric, in the order given; `alpha` is the one-sided error probability of
    each interval. Of a kind of control there may be several draws. Left out are metrics without an interval, and those
    of two models together."""
    wanted = [name for name in metrics if registry.lookup(name).spread is not None and not registry.is_distance(name)]
    changes = compare(baseline, quantized, wanted)
    of_controls = {kind: [compare(baseline, m, wanted) for m in draws] for kind, draws in controls.items()}
    left = {kind: [compare(m, quantized, wanted) for m in draws] for kind, draws in controls.items()}
    found = []
    for name in wanted:
        moved = _moved(changes.get(name), alpha)
        by, beyond = (_all_moved(of, name, alpha) for of in (of_controls, left))
        if moved is not None and by is not None and beyond is not None:
            accounts = {kind: _accounts(moved, draws) for kind, draws in beyond.items()}
            together = {kind: _together(draws) for kind, draws in by.items()}
            found.append(Explanation(name, moved, together, conclude(moved, accounts)))
    return found


def _all_moved(
    controls: Mapping[Kind, Sequence[Mapping[str, Change]]], name: str, alpha: float
) -> dict[Kind, list[Effect]] | None:
    """The change of one metric in every draw of every control; None where it is unknown in any."""
    found = {kind: [_moved(changes.get(name), alpha) for changes in draws] for kind, draws in controls.items()}
    known = {kind: [moved for moved in draws if moved is not None] for kind, draws in found.items()}
    return known if known == found else None


def conclude(moved: Effect, accounts: Mapping[Kind, bool | None]) -> Conclusion:
    """From a change, and whether each control accounts for it, does not, or is undecided.

    Where both do it is noise: any disturbance of that size has the effect, and filtering is but one.
    """
    if moved.interval.low <= 0 <= moved.interval.high:
        return "cannot tell at this n"
    if accounts["noise"]:
        return "by noise of that size"
    if accounts["noise"] is False and accounts["lowrank"] is not None:
        return "explained by spectral filtering" if accounts["lowrank"] else "by neither"
    return "cannot tell at this n"


def _accounts(moved: Effect, left: Sequence[Effect]) -> bool | None:
    """Whether less than half of a change is `left` by any draw of a control, or more by all, in either direction; None
    if undecided. Of several draws all must also be so far away that another would not be expected to come near."""
    half = HALF * abs(moved.change)
    if any(-half < of.interval.low and of.interval.high < half for of in left):
        return True
    if not all(of.interval.low > half or of.interval.high < -half for of in left):
        return None
    draws = np.array([of.change for of in left])
    if len(draws) > 1:
        beyond = t.isf(ANOTHER_DRAW / 2, len(draws) - 1) * draws.std(ddof=1) * math.sqrt(1 + 1 / len(draws))
        return None if abs(draws.mean()) <= beyond else False
    return False


def _together(draws: Sequence[Effect]) -> Effect:
    """The mean change of several draws, and all that their intervals hold."""
    low, high = min(of.interval.low for of in draws), max(of.interval.high for of in draws)
    return Effect(float(np.mean([of.change for of in draws])), Interval(low, high))


def _moved(change: Change | None, alpha: float) -> Effect | None:
    if change is None or change.problem or change.bounds is None:
        return None
    interval = change.bounds(alpha)
    return Effect(change.delta, interval) if all(map(math.isfinite, (change.delta, *interval))) else None


def match_strength(ratio: Callable[[float], float], target: float) -> float:
    """The strength of a control at which the residual-to-signal ratio of its features is `target`, within .5 %.

    The ratio goes nearly with a power of the strength, the square where that is small: secants on logarithms, held
    between what is too weak and what is too strong. Raises InputError where no strength gives the ratio, and for a
    ratio of 0.
    """
    if not target > 0:
        raise InputError("the quantized features are those of full precision, so that there is nothing to match")
    low, high, at, power = 0.0, math.inf, 1.0, 2.0
    before: tuple[float, float] | None = None
    for _ in range(ATTEMPTS):
        found = ratio(at)
        if abs(found / target - 1) <= TOLERANCE:
            return at
        low, high = (at, high) if found < target else (low, at)
        if before is not None and min(found, before[1]) > 0 and found != before[1]:
            power = math.log(found / before[1]) / math.log(at / before[0])
        before = at, found
        step = at * (target / found) ** (1 / power) if found > 0 and power > 0.1 else math.inf
        at = step if low < step < high else min((low + high) / 2, 2 * at)
    raise InputError(f"no control has features with the residual-to-signal ratio {target:.3g} of the quantized ones")
