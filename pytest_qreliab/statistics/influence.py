"""Smooth functions of means, with intervals by the delta method: an estimate carries what each sample does to it.

accuracy_drop = paired_mean(baseline_correct, "ID") - paired_mean(quantized_correct, "ID")
(accuracy_drop / paired_mean(baseline_correct, "ID")).interval(alpha)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from pytest_qreliab.statistics.arrays import FloatArray, finite
from pytest_qreliab.statistics.interval import Interval, skewed_interval


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value and, per group of samples, the influence of each sample on it (Hampel 1974).

    Groups are image sets, called by name: samples of the same group are paired in the order they come in, samples
    of different groups are independent. `influences[group]`, float64 of shape (n of the group,), has mean 0; adding
    a share e of weight to sample i moves the value by e * influence[i]. So the variance of the value is the sum over
    groups of var(influence) / n, whatever the pairing within a group.
    """

    value: float
    influences: Mapping[str, FloatArray]

    def __add__(self, other: Estimate) -> Estimate:
        return self._with(other, self.value + other.value, 1.0, 1.0)

    def __sub__(self, other: Estimate) -> Estimate:
        return self._with(other, self.value - other.value, 1.0, -1.0)

    def __truediv__(self, other: Estimate | float) -> Estimate:
        """The ratio; NaN, with influences of NaN, over zero."""
        below = other if isinstance(other, Estimate) else Estimate(other, {})
        divisor = below.value or float("nan")
        value = self.value / divisor
        return self._with(below, value, 1 / divisor, -value / divisor)

    def padded(self, both_sides: bool = True) -> Estimate:
        """The same with one more sample in each group that is as influential as the most influential one, and its
        opposite, if there may be such samples.

        Where few samples differ at all, those that happen to be there tell neither how often nor which way others
        would: the remedy of Bonett & Price (2012) for paired proportions, for any influences. It fades with n.
        """
        padded = {}
        for group, influence in self.influences.items():
            most = influence[np.abs(influence).argmax()]
            padded[group] = np.append(influence, [most, -most] if both_sides else [most])
        return Estimate(self.value, padded)

    def interval(self, alpha: float) -> Interval:
        """Interval with Student's t and the degrees of freedom of Welch (1947) and Satterthwaite (1946).

        For one group it is the paired t interval, corrected for the skewness that the influences give the value (Hall
        1992), so that rare large ones are not missed in the far tail. It has no width where no sample has any
        influence, as between two models that answer alike, and is (NaN, NaN) where the value is not finite.
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

    def _with(self, other: Estimate, value: float, by_self: float, by_other: float) -> Estimate:
        """The estimate `value`, whose derivatives with respect to the two are given."""
        influences = {group: by_self * influence for group, influence in self.influences.items()}
        for group, influence in other.influences.items():
            mine = influences.get(group, np.zeros_like(influence))
            if len(mine) != len(influence):
                raise ValueError(f"{group!r} has {len(mine)} samples in one estimate and {len(influence)} in another")
            influences[group] = mine + by_other * influence
        return Estimate(value, influences)


def paired_mean(values: npt.ArrayLike, group: str) -> Estimate:
    """The mean of one value per sample, shape (n,), n >= 2, of the image set `group`.

    Raises ValueError for another shape, NaN or infinity.
    """
    x = finite(values, group, 2)
    value = x.mean()
    return Estimate(float(value), {group: x - value})


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of at least one estimate, each counting alike."""
    total = estimates[0]
    for estimate in estimates[1:]:
        total = total + estimate
    return total / float(len(estimates))
