"""Matched controls: what explains why a metric moved.

A control is a model that errs as much as the quantized one, but not by rounding: `lowrank` filters the spectra of the
weights, `noise` disturbs them. A control accounts for a change if it makes one so alike that less than half remains:
the quantized model less the control. The interval of that difference decides. Noise is drawn several times, because
one draw may do by chance what another does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t

from pytest_qreliab.config.cases import ControlKind
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.measurement.comparison import Change, compare
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.metrics import registry
from pytest_qreliab.statistics.interval import Interval

Conclusion = Literal["explained by spectral filtering", "by noise of that size", "by neither", "cannot tell at this n"]

HALF = 0.5
ANOTHER_DRAW = 0.05  # the probability that one more draw lies outside of what the others predict
TOLERANCE = 0.005  # of the residual-to-signal ratio, relative, when the strength of a control is sought
ATTEMPTS = 40


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A change of one metric."""

    change: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The effects of a quantized model and its controls on one metric."""

    metric: str
    quantized: Effect
    controls: Mapping[ControlKind, Effect]
    conclusion: Conclusion


@dataclass(frozen=True, kw_only=True)
class ControlFindings:
    """The findings from the controls of a case."""

    matched: str  # the error that controls share with the quantized model: of its `weights` or of its `features`
    residuals: Mapping[str, float]  # residual-to-signal ratios of the features, of quantized model and controls
    explanations: tuple[Explanation, ...] = ()
    problem: str = ""  # why there are no explanations


def explain(
    baseline: Measurement,
    quantized: Measurement,
    controls: Mapping[ControlKind, Sequence[Measurement]],
    metrics: Collection[str],
    alpha: float,
) -> list[Explanation]:
    """Explain the change of each metric by the controls.

    Args:
        baseline: The measurement in full precision.
        quantized: The measurement of the quantized model.
        controls: The measurements of each kind of control, one for each draw.
        metrics: The metrics to explain, by canonical name.
        alpha: The one-sided error probability of each interval.

    Returns:
        The explanations in the order of the metrics, without metrics that have no interval in any of the models, and
        without those of two models together.
    """
    wanted = [name for name in metrics if registry.lookup(name).spread is not None and not registry.is_distance(name)]
    changes = compare(baseline, quantized, wanted)
    by_controls = {kind: [compare(baseline, draw, wanted) for draw in draws] for kind, draws in controls.items()}
    beyond_controls = {kind: [compare(draw, quantized, wanted) for draw in draws] for kind, draws in controls.items()}
    explanations = []
    for name in wanted:
        effect = _effect(changes.get(name), alpha)
        caused, remaining = (_control_effects(group, name, alpha) for group in (by_controls, beyond_controls))
        if effect is not None and caused is not None and remaining is not None:
            accounting = {kind: accounts_for(effect, draws) for kind, draws in remaining.items()}
            explanations.append(
                Explanation(
                    metric=name,
                    quantized=effect,
                    controls={kind: _combine_draws(draws) for kind, draws in caused.items()},
                    conclusion=conclude(effect, accounting),
                )
            )
    return explanations


def _control_effects(
    changes: Mapping[ControlKind, Sequence[Mapping[str, Change]]], name: str, alpha: float
) -> dict[ControlKind, list[Effect]] | None:
    """Return the effect of every draw of every control on one metric, or None if any is unknown."""
    effects = {kind: [_effect(draw.get(name), alpha) for draw in draws] for kind, draws in changes.items()}
    known = {kind: [effect for effect in draws if effect is not None] for kind, draws in effects.items()}
    return known if known == effects else None


def conclude(effect: Effect, accounting: Mapping[ControlKind, bool | None]) -> Conclusion:
    """Conclude from an effect and its controls why a metric moved.

    If both controls account for it the cause is noise: any disturbance of that size has the effect.

    Args:
        effect: The effect of the quantized model.
        accounting: For each kind of control whether it accounts for the effect, None if undecided.

    Returns:
        The conclusion, in words.
    """
    if effect.interval.low <= 0 <= effect.interval.high:
        return "cannot tell at this n"
    if accounting["noise"]:
        return "by noise of that size"
    if accounting["noise"] is False and accounting["lowrank"] is not None:
        return "explained by spectral filtering" if accounting["lowrank"] else "by neither"
    return "cannot tell at this n"


def accounts_for(effect: Effect, remaining: Sequence[Effect]) -> bool | None:
    """Return whether a control accounts for an effect.

    Args:
        effect: The effect of the quantized model.
        remaining: The effect of the quantized model beyond each draw of the control.

    Returns:
        True if less than half of the effect remains beyond any draw. False if more than half remains beyond all of
        them, in either direction, and another draw is not expected to come near. None if undecided.
    """
    half = HALF * abs(effect.change)
    if any(-half < rest.interval.low and rest.interval.high < half for rest in remaining):
        return True
    if not all(rest.interval.low > half or rest.interval.high < -half for rest in remaining):
        return None
    draws = np.array([rest.change for rest in remaining])
    if len(draws) > 1:
        reach = t.isf(ANOTHER_DRAW / 2, len(draws) - 1) * draws.std(ddof=1) * math.sqrt(1 + 1 / len(draws))
        return None if abs(draws.mean()) <= reach else False
    return False


def _combine_draws(draws: Sequence[Effect]) -> Effect:
    """Return the mean change of several draws, with the union of their intervals."""
    low, high = min(draw.interval.low for draw in draws), max(draw.interval.high for draw in draws)
    return Effect(change=float(np.mean([draw.change for draw in draws])), interval=Interval(low, high))


def _effect(change: Change | None, alpha: float) -> Effect | None:
    if change is None or change.problem or change.bounds is None:
        return None
    interval = change.bounds(alpha)
    finite = all(map(math.isfinite, (change.delta, *interval)))
    return Effect(change=change.delta, interval=interval) if finite else None


def match_strength(ratio: Callable[[float], float], target: float) -> float:
    """Return the strength of a control at which its features err as much as the target says.

    The ratio goes nearly with a power of the strength, the square if that is small. The search takes secants on
    logarithms, held between what is too weak and what is too strong.

    Args:
        ratio: The residual-to-signal ratio of the control's features at a strength.
        target: The residual-to-signal ratio of the quantized features.

    Returns:
        A strength above 0 at which the ratio is within 0.5 % of the target.

    Raises:
        InputError: The target is 0, or no strength gives it.
    """
    if not target > 0:
        raise InputError("the quantized features are those of full precision, so that there is nothing to match")
    low, high, strength, power = 0.0, math.inf, 1.0, 2.0
    before: tuple[float, float] | None = None
    for _ in range(ATTEMPTS):
        reached = ratio(strength)
        if abs(reached / target - 1) <= TOLERANCE:
            return strength
        low, high = (strength, high) if reached < target else (low, strength)
        if before is not None and min(reached, before[1]) > 0 and reached != before[1]:
            power = math.log(reached / before[1]) / math.log(strength / before[0])
        before = strength, reached
        step = strength * (target / reached) ** (1 / power) if reached > 0 and power > 0.1 else math.inf
        strength = step if low < step < high else min((low + high) / 2, 2 * strength)
    raise InputError(f"no control has features with the residual-to-signal ratio {target:.3g} of the quantized ones")
