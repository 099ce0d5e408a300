"""What a paired test can see: the smallest harm it finds with probability `power`, at one-sided level `alpha`."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

POWER = 0.8


def minimum_detectable(spread: float, n: int, alpha: float, power: float = POWER) -> float:
    """The effect that is found in n samples, of standard error spread / sqrt(n): z_alpha + z_power standard errors.

    For accuracy the spread is nearly sqrt(churn), churn being the share of samples whose correctness differs, and the
    effect 2.49 sqrt(churn / n) at alpha .05; `minimum_detectable_drop` is exact. Raises ValueError for a spread that
    is negative or not finite, n < 1, or alpha or power outside (0, 1).
    """
    if not n >= 1:
        raise ValueError(f"n is {n}")
    return _quantiles(spread, alpha, power) / math.sqrt(n)


def samples_needed(spread: float, effect: float, alpha: float, power: float = POWER) -> int:
    """The least n, at least 1, at which `minimum_detectable` is at most `effect`.

    Raises ValueError for an effect that is not positive and finite, else as `minimum_detectable`.
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
    """The probability that the lower bound of Tango's interval on the drop in accuracy is above 0, exactly.

    Of n samples a share `churn` changes its correctness, and `drop`, at most churn, is lost more often than gained.
    The bound is above 0 where lost - gained > z_alpha sqrt(lost + gained). Raises ValueError unless
    0 <= drop <= churn <= 1 and n >= 1, or for alpha outside (0, 1).
    """
    if not (0 <= drop <= churn <= 1 and n >= 1):
        raise ValueError(f"a drop of {drop} with a churn of {churn} in {n} samples")
    z = _z(alpha)
    if n * churn < 1e-12:  # no sample changes; scipy overflows near the least float
        return 0.0
    # Numbers of changed samples; what lies beyond has a probability below 1e-12.
    changed = np.arange(binom.ppf(1e-13, n, churn), binom.isf(1e-13, n, churn) + 1)
    most_lost_unseen = np.floor((changed + z * np.sqrt(changed)) / 2)
    share_lost = (1 + drop / churn) / 2
    return float(binom.pmf(changed, n, churn) @ binom.sf(most_lost_unseen, changed, share_lost))


def minimum_detectable_drop(churn: float, n: int, alpha: float, power: float = POWER) -> float:
    """The drop in accuracy, in (0, 1], that `drop_power` finds with probability `power`; NaN where n is too small.

    `churn`, in [0, 1], is the share of samples whose correctness differs; where a drop is larger than that, every
    changed sample is lost and the churn is the drop. Raises ValueError for a churn outside [0, 1], n < 1, or alpha or
    power outside (0, 1).
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
    if not 0 <= spread < math.inf:
        raise ValueError(f"the spread is {spread}")
    return (_z(alpha) - _z(power)) * spread


def _z(tail: float) -> float:
    if not 0 < tail < 1:
        raise ValueError(f"a probability of {tail}")
    return float(norm.isf(tail))
