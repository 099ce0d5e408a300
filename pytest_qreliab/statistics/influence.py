"""Smooth functions of means, with intervals by the delta method.

An estimate carries the influence of each sample on it. Sums, differences and ratios of estimates carry theirs, and so
have intervals without a formula of their own:

    accuracy_drop = paired_mean(baseline_correct, "ID") - paired_mean(quantized_correct, "ID")
    (accuracy_drop / paired_mean(baseline_correct, "ID")).interval(alpha)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from pytest_qreliab.statistics.arrays import FloatArray, IntArray, check_finite
from pytest_qreliab.statistics.interval import Interval, skewed_interval

UNITS = "units"  # the group of the samples that `Estimate.clustered` has joined


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value with the influence of each sample on it (Hampel 1974).

    Samples come in groups, which are image sets called by name. Samples of one group are paired in the order that they
    come in. Samples of different groups are independent. The variance of the value is therefore the sum over groups of
    var(influence) / n, whatever the pairing within a group.

    Example:
        >>> before, after = paired_mean([1, 1, 0, 1], "ID"), paired_mean([1, 0, 0, 1], "ID")
        >>> (after - before).value
        -0.25
        >>> [float(influence) for influence in (after - before).influences["ID"]]
        [0.25, -0.75, 0.25, 0.25]
    """

    value: float
    # By group, shape (n,), mean 0: a share e of extra weight on sample i moves the value by e * influence[i].
    influences: Mapping[str, FloatArray]

    def __add__(self, other: Estimate) -> Estimate:
        return self._combine(other, self.value + other.value, 1.0, 1.0)

    def __sub__(self, other: Estimate) -> Estimate:
        return self._combine(other, self.value - other.value, 1.0, -1.0)

    def __truediv__(self, other: Estimate | float) -> Estimate:
        """Return the ratio; value and influences are NaN if the divisor is zero."""
        below = other if isinstance(other, Estimate) else Estimate(other, {})
        divisor = below.value or float("nan")
        value = self.value / divisor
        return self._combine(below, value, 1 / divisor, -value / divisor)

    def pad(self, both_sides: bool = True) -> Estimate:
        """Return the estimate with one or two more influential samples per group.

        They are as influential as the most influential sample of the group. If few samples differ at all, they tell
        neither how often nor which way others would. Bonett & Price (2012) add such samples to paired proportions; this
        does it for any influences. The effect fades with n.

        Args:
            both_sides: Whether to add the opposite sample, too. Pass False if there can be none.

        Example:
            >>> [float(x) for x in paired_mean([0, 0, 0, 4], "ID").pad().influences["ID"]]
            [-1.0, -1.0, -1.0, 3.0, 3.0, -3.0]
        """
        padded = {}
        for group, influence in self.influences.items():
            most = influence[np.abs(influence).argmax()]
            padded[group] = np.append(influence, [most, -most] if both_sides else [most])
        return Estimate(self.value, padded)

    def clustered(self, units: Mapping[str, IntArray]) -> Estimate:
        """Return the estimate with the samples that show the same as one observation.

        The influence of a unit is the sum of those of its samples, wherever they are. So the variance is that of
        clusters (Liang & Zeger 1986, without a model).

        Args:
            units: The number of the unit of each sample, (n,), by group. A group without them stays as it is.

        Returns:
            The estimate. The groups that have units are one group of all their units.

        Example:
            >>> change = paired_mean([1, 0, 0, 1], "common") - paired_mean([0, 0, 1, 1], "counter")
            >>> same = change.clustered({"common": np.arange(4), "counter": np.arange(4)})
            >>> [float(influence) for influence in same.influences["units"]]
            [1.0, 0.0, -1.0, 0.0]
        """
        mine = {group: units[group] for group in self.influences if group in units}
        if not mine:
            return self
        numbers, places = np.unique(np.concatenate(list(mine.values())), return_inverse=True)
        shares = np.concatenate([self.influences[group] / len(self.influences[group]) for group in mine])
        total: FloatArray = np.bincount(places, shares).astype(np.float64) * len(numbers)
        rest = {group: influence for group, influence in self.influences.items() if group not in mine}
        return Estimate(self.value, {**rest, UNITS: total})

    def interval(self, alpha: float) -> Interval:
        """Return the interval of the value.

        It is Student's, with the degrees of freedom of Welch (1947) and Satterthwaite (1946). For one group it is the
        paired t interval. It is corrected for the skewness that the influences give the value (Hall 1992), so that
        rare large ones are not missed in the far tail.

        Args:
            alpha: The error probability of each bound, in (0, 1).

        Returns:
            The bounds. They are equal if no sample has any influence, for example between two models that answer
            alike. They are NaN if the value is not finite.

        Example:
            >>> low, high = paired_mean([0.1, 0.3, 0.2, 0.4], "ID").interval(0.05)
            >>> round(low, 3), round(high, 3)
            (0.098, 0.402)
        """
        if not np.isfinite(self.value):
            return Interval(float("nan"), float("nan"))
        parts = np.array([group.var(ddof=1) / len(group) for group in self.influences.values()])
        variance = parts.sum()
        if variance == 0:
            return Interval(self.value, self.value)
        degrees = np.array([len(group) - 1 for group in self.influences.values()])
        df = 1 / ((parts / variance) ** 2 / degrees).sum()
        error = float(variance) ** 0.5
        scaled = [group / error for group in self.influences.values()]
        skewness = sum(float((x * x * x).mean()) / len(x) ** 2 for x in scaled)
        return skewed_interval(self.value, error, skewness, float(t.isf(alpha, df)))

    def _combine(self, other: Estimate, value: float, by_self: float, by_other: float) -> Estimate:
        """Return the estimate of a function of both, given its derivatives."""
        influences = {group: by_self * influence for group, influence in self.influences.items()}
        for group, influence in other.influences.items():
            mine = influences.get(group, np.zeros_like(influence))
            if len(mine) != len(influence):
                raise ValueError(f"{group!r} has {len(mine)} samples in one estimate and {len(influence)} in another")
            influences[group] = mine + by_other * influence
        return Estimate(value, influences)


def paired_mean(values: npt.ArrayLike, group: str) -> Estimate:
    """Compute a mean whose interval respects how samples are paired.

    Estimates of the same group share their samples: in a difference or a ratio of two such means, sample i of one is
    paired with sample i of the other. Estimates of different groups are independent. So a metric that is a smooth
    function of means gets its interval from that function alone.

    Args:
        values: One value per sample, shape (n,), n at least 2.
        group: The name of the image set that the samples belong to.

    Returns:
        The mean. It can be added, subtracted and divided, and has an `interval`.

    Raises:
        ValueError: The values have another shape, or one of them is NaN or infinite.

    Example:
        >>> baseline = paired_mean([1] * 80 + [0] * 20, "ID")
        >>> quantized = paired_mean([1] * 70 + [0] * 30, "ID")
        >>> drop = (baseline - quantized) / baseline
        >>> round(drop.value, 3)
        0.125
        >>> low, high = drop.interval(0.05)
        >>> round(low, 2), round(high, 2)
        (0.07, 0.2)
    """
    x = check_finite(values, group, 2)
    value = x.mean()
    return Estimate(float(value), {group: x - value})


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of at least one estimate, each counting alike.

    Example:
        >>> average([paired_mean([0, 1], "near"), paired_mean([1, 1], "far")]).value
        0.75
    """
    total = estimates[0]
    for estimate in estimates[1:]:
        total = total + estimate
    return total / float(len(estimates))
