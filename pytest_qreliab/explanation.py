"""Why a metric moved: a quantized model beside controls that err as much as it does, but not by rounding.

`lowrank` filters the spectra of the weights, `noise` disturbs them. A control accounts for a change if it makes one so
alike that what is left, the quantized model less the control, is less than half of it; the interval of that decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pytest_qreliab.comparison import Change, compare
from pytest_qreliab.errors import InputError
from pytest_qreliab.measurement import Measurement
from pytest_qreliab.metrics import registry
from pytest_qreliab.quantizers.controls import Kind
from pytest_qreliab.statistics.interval import Interval

Conclusion = Literal["explained by spectral filtering", "by noise of that size", "by neither", "cannot tell at this n"]

HALF = 0.5
TOLERANCE = 0.005  # of the residual-to-signal ratio, when the strength of a control is sought
ATTEMPTS = 40


@dataclass(frozen=True)
class Moved:
    """A change from full precision, and its interval."""

    change: float
    interval: Interval


@dataclass(frozen=True)
class Explanation:
    """One metric: how far the quantized model and each control move it, and what that says."""

    metric: str
    quantized: Moved
    controls: Mapping[Kind, Moved]
    conclusion: Conclusion


@dataclass(frozen=True)
class Controls:
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
    controls: Mapping[Kind, Measurement],
    metrics: Collection[str],
    alpha: float,
) -> list[Explanation]:
    """What accounts for the change of each metric, in the order given; `alpha` is the one-sided error probability of
    each interval. Left out are metrics without one, and those of two models together."""
    wanted = [name for name in metrics if registry.lookup(name).spread is not None and not registry.of_two_models(name)]
    of_quantized = compare(baseline, quantized, wanted)
    of_controls = {kind: compare(baseline, control, wanted) for kind, control in controls.items()}
    left = {kind: compare(control, quantized, wanted) for kind, control in controls.items()}
    found = []
    for name in wanted:
        moved = _moved(of_quantized.get(name), alpha)
        by = {kind: _moved(changes.get(name), alpha) for kind, changes in of_controls.items()}
        remainders = {kind: _moved(changes.get(name), alpha) for kind, changes in left.items()}
        sure = {kind: of for kind, of in by.items() if of is not None}
        beyond = {kind: of.interval for kind, of in remainders.items() if of is not None}
        if moved is not None and len(sure) == len(beyond) == len(controls):
            found.append(Explanation(name, moved, sure, conclude(moved.change, moved.interval, beyond)))
    return found


def conclude(change: float, interval: Interval, left: Mapping[Kind, Interval]) -> Conclusion:
    """From a change, its interval, and those of what is left of it when each control is taken away.

    Where both controls account for it, it is noise: any disturbance of that size does it, and filtering is but one.
    """
    if interval.low <= 0 <= interval.high:
        return "cannot tell at this n"
    accounts = {kind: _accounts(abs(change), of) for kind, of in left.items()}
    if accounts["noise"]:
        return "by noise of that size"
    if accounts["noise"] is False and accounts["lowrank"] is not None:
        return "explained by spectral filtering" if accounts["lowrank"] else "by neither"
    return "cannot tell at this n"


def _accounts(size: float, left: Interval) -> bool | None:
    """Whether less than half of a change of that size is left, or more, in either direction; None if undecided."""
    if -HALF * size < left.low and left.high < HALF * size:
        return True
    if left.low > HALF * size or left.high < -HALF * size:
        return False
    return None


def _moved(change: Change | None, alpha: float) -> Moved | None:
    if change is None or change.problem or change.bounds is None:
        return None
    interval = change.bounds(alpha)
    return Moved(change.delta, interval) if all(map(math.isfinite, (change.delta, *interval))) else None


def residual_ratio(full: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Mean square of what is added to features (n, dim), over that of the features, centred: `spectral.residual`."""
    signal = np.square(full - full.mean(axis=0, dtype=np.float64)).sum()
    return float(np.square(other.astype(np.float64) - full).sum() / signal)


def strength(ratio: Callable[[float], float], target: float) -> float:
    """The strength of a control at which the residual-to-signal ratio of its features is `target`, within .5 %.

    The ratio goes with the square of a small strength. Raises InputError where no strength gives it.
    """
    low, high, at = 0.0, math.inf, 1.0
    for _ in range(ATTEMPTS):
        found = ratio(at)
        if abs(found / target - 1) <= TOLERANCE:
            return at
        low, high = (at, high) if found < target else (low, at)
        step = at * (target / found) ** 0.5 if found > 0 else 2 * at
        at = step if low < step < high else min((low + high) / 2, 2 * at)
    raise InputError(f"no control has features with the residual-to-signal ratio {target:.3g} of the quantized ones")
