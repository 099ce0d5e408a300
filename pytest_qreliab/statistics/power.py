"""The power of paired tests: the smallest harm that they find.

Throughout, alpha is the one-sided level of the test, and power the probability that it finds the harm.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

POWER = 0.8


def minimum_detectable(spread: float, n: int, alpha: float, power: float = POWER) -> float:
    """Return the smallest effect that a test on n samples finds.

    It is z_alpha + z_power standard errors. For accuracy, the spread is nearly sqrt(churn), and churn is the share of
    samples whose correctness differs. The effect is then 2.49 sqrt(churn / n) at an alpha of 0.05;
    `minimum_detectable_drop` is exact.

    Args:
        spread: The standard deviation of the paired differences, so that the standard error is spread / sqrt(n).
        n: The number of samples, at least 1.
        alpha: The level, in (0, 1).
        power: The power, in (0, 1).

    Raises:
        ValueError: The spread is negative or not finite, n is below 1, or alpha or power is outside (0, 1).

    Example:
        >>> round(minimum_detectable(0.03**0.5, 1000, 0.05), 4)
        0.0136
    """
    if not n >= 1:
        raise ValueError(f"n is {n}")
    return _quantiles(spread, alpha, power) / math.sqrt(n)


def samples_needed(spread: float, effect: float, alpha: float, power: float = POWER) -> int:
    """Return the least number of samples that show an effect.

    Args:
        spread: The standard deviation of the paired differences.
        effect: The effect to find: the result of `minimum_detectable` is at most that much.
        alpha: The level, in (0, 1).
        power: The power, in (0, 1).

    Raises:
        ValueError: The effect is not positive and finite, or `minimum_detectable` refuses another argument.

    Example:
        >>> samples_needed(0.03**0.5, 0.01, 0.05)
        1855
    """
    if not 0 < effect < math.inf:
        raise ValueError(f"the effect is {effect}")
    n = max(1, math.ceil((_quantiles(spread, alpha, power) / effect) ** 2))
    # The square and the root round differently where the effect is met exactly.
    while n > 1 and minimum_detectable(spread, n - 1, alpha, power) <= effect:
        n -= 1
    while minimum_detectable(spread, n, alpha, power) > effect:
        n += 1
    return n


def drop_power(drop: float, churn: float, n: int, alpha: float) -> float:
    """Return the exact probability that Tango's interval shows a drop in accuracy.

    It shows one if the lower bound of the drop is above 0, which is if lost - gained > z_alpha sqrt(lost + gained).

    Args:
        drop: The true drop: the share of samples lost less the share gained, in [0, churn].
        churn: The share of samples whose correctness differs, in [0, 1].
        n: The number of samples, at least 1.
        alpha: The level, in (0, 1).

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> round(drop_power(0.02, 0.03, 1000, 0.05), 2)
        0.99
    """
    if not (0 <= drop <= churn <= 1 and n >= 1):
        raise ValueError(f"a drop of {drop} with a churn of {churn} in {n} samples")
    z = _z(alpha)
    if n * churn < 1e-12:  # no sample changes; scipy overflows near the least float
        return 0.0
    # Other numbers of changed samples have a probability below 1e-12 together.
    changed = np.arange(binom.ppf(1e-13, n, churn), binom.isf(1e-13, n, churn) + 1)
    most_lost_unseen = np.floor((changed + z * np.sqrt(changed)) / 2)
    share_lost = (1 + drop / churn) / 2
    return float(binom.pmf(changed, n, churn) @ binom.sf(most_lost_unseen, changed, share_lost))


def minimum_detectable_drop(churn: float, n: int, alpha: float, power: float = POWER) -> float:
    """Return the smallest drop in accuracy that Tango's interval shows.

    Args:
        churn: The share of samples whose correctness differs, in [0, 1]. For a drop above it, every changed sample is
            lost, and the churn is the drop.
        n: The number of samples, at least 1.
        alpha: The level, in (0, 1).
        power: The power, in (0, 1).

    Returns:
        The drop, in (0, 1], at which `drop_power` is `power`. It is NaN if n is too small for any drop, and 0 if alpha
        is no smaller than power.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> round(minimum_detectable_drop(0.03, 1000, 0.05), 4)
        0.0133
    """
    _z(power)
    if not 0 <= churn <= 1:
        raise ValueError(f"the churn is {churn}")

    def excess(drop: float) -> float:
        return drop_power(drop, max(churn, drop), n, alpha) - power

    if excess(0.0) >= 0:  # only where alpha is no smaller than power
        return 0.0
    return float(brentq(excess, 0.0, 1.0, xtol=1e-9)) if excess(1.0) >= 0 else float("nan")


def _quantiles(spread: float, alpha: float, power: float) -> float:
    """Return z_alpha + z_power times the spread, the effect that one sample shows."""
    if not 0 <= spread < math.inf:
        raise ValueError(f"the spread is {spread}")
    return (_z(alpha) - _z(power)) * spread


def _z(tail: float) -> float:
    """Return the normal quantile with that probability above it."""
    if not 0 < tail < 1:
        raise ValueError(f"a probability of {tail}")
    return float(norm.isf(tail))
