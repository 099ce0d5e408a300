"""The table of the metrics on further labelled sets: shifted, corrupted, or with a spurious cue."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_qreliab.metrics.definitions import Direction, Metric, Need
from pytest_qreliab.metrics.names import MetricName

if TYPE_CHECKING:
    from pytest_qreliab.metrics.classification import Predictions
    from pytest_qreliab.statistics.arrays import FloatArray

SPURIOUS_PAIR = ("common", "counter")  # the sets that the spurious gap compares


@dataclass(frozen=True, kw_only=True)
class SetStatistic:
    """A statistic of one labelled set, which is averaged over several."""

    header: str
    better: Direction
    samples: Callable[[Predictions], FloatArray] | None  # the value is their mean; None: it is binned
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class SetCategory:
    """A category of further labelled sets."""

    need: Need
    condition: str
    together: str  # all sets in words
    part: str  # the pattern of the part of a name that says which sets are meant, if not all
    spreads: dict[str, tuple[float, float]]  # by statistic, of the mean over all sets and of one set
    same_images: int = 0  # the number of sets that the first of these spreads is of, if they hold the same images


STATISTICS = {
    "accuracy": SetStatistic(header="accuracy", better="higher", samples=lambda p: p.correct),
    "nll": SetStatistic(header="NLL", better="lower", samples=lambda p: p.nll, unit=", nats"),
    "ece": SetStatistic(header="ECE", better="lower", samples=None),
}

CATEGORIES = {
    "shift": SetCategory(
        need="shift",
        condition="covariate shift",
        together="the shifted sets",
        part=r"[^.]+",
        spreads={"accuracy": (0.23, 0.23), "nll": (0.36, 0.36), "ece": (0.32, 0.32)},
    ),
    "corruption": SetCategory(
        need="corruption",
        condition="corruption",
        together="the grid",
        part=r"[a-z_]+(\.[1-5])?|[1-5]",
        # The grid is of the same images, whose changes even out over its cells.
        same_images=15,
        spreads={"accuracy": (0.07, 0.32), "nll": (0.13, 0.57), "ece": (0.12, 0.5)},
    ),
}

SPURIOUS = {
    metric.name: metric
    for metric in (
        Metric(
            name="spurious.gap",
            aspect="robustness",
            better="lower",
            header="spurious gap",
            help="relative spurious gap, (A(common) - A(counter)) / A(common)",
            spread=0.79,
            needs=frozenset({"spurious"}),
        ),
        Metric(
            name="spurious.vulnerability",
            aspect="robustness",
            better="lower",
            header="spurious vulnerability",
            help="relative accuracy drop by quantization on counter images, less that on common ones",
            spread=0.76,
            needs=frozenset({"spurious"}),
            distance=True,
        ),
        Metric(
            name="spurious.worst_group",
            aspect="robustness",
            better="higher",
            header="worst group",
            help="accuracy in the group where it is least",
            spread=0.35,
            needs=frozenset({"spurious"}),
        ),
    )
}

# The names of the means over all sets of a category.
MEANS = tuple(f"{category}.{statistic}" for category in CATEGORIES for statistic in STATISTICS)


def find(name: MetricName) -> Metric | None:
    """Return the metric of a name that begins with `shift` or `corruption`; None if there is none.

    Example:
        >>> find(MetricName.parse("corruption.nll.fog.3")).header
        'corruption NLL fog 3'
    """
    category, statistic = CATEGORIES[name.family], STATISTICS.get(name.statistic)
    if statistic is None or (name.part and not re.fullmatch(category.part, name.part)):
        return None
    of_all, of_one = category.spreads[name.statistic]
    header = f"{name.family} {statistic.header}"
    return Metric(
        name=str(name),
        aspect="robustness",
        better=statistic.better,
        header=" ".join([header, *filter(None, name.part.split("."))]),
        help=f"{statistic.header} under {category.condition}{statistic.unit}, {_where(name, category)}",
        spread=of_one if name.part else of_all,
        needs=frozenset({category.need}),
    )


def spread_over(name: MetricName, sets: int) -> float:
    """Return the spread of a mean over so many shifted sets, or cells of a grid.

    The variance of a grid falls with the reciprocal of its cells, from that of one to that of fifteen. More cells are
    taken for no better.

    Args:
        name: The name of a metric on shifted or corrupted sets.
        sets: The number of sets, at least 1.

    Example:
        >>> [round(spread_over(MetricName.parse("corruption.accuracy"), cells), 2) for cells in (1, 4, 15, 75)]
        [0.32, 0.16, 0.07, 0.07]
    """
    category = CATEGORIES[name.family]
    of_all, of_one = category.spreads[name.statistic]
    if not category.same_images:
        return of_one if name.part else of_all
    share = max(0.0, (1 / sets - 1 / category.same_images) / (1 - 1 / category.same_images))
    return math.sqrt(of_all**2 + share * (of_one**2 - of_all**2))


def _where(name: MetricName, category: SetCategory) -> str:
    """Return the sets that a metric is measured on, in words."""
    kind, _, severity = name.part.rpartition(".")
    if not name.part:
        return f"mean over {category.together}"
    if name.family != "corruption":
        return f"on {name.part}"
    if kind:
        return f"of {kind} at severity {severity}"
    return f"mean over {f'kinds at severity {severity}' if severity.isdigit() else f'severities of {severity}'}"


def find_spurious(name: MetricName) -> Metric | None:
    """Return the metric of a name that begins with `spurious`; None if there is none.

    Example:
        >>> find_spurious(MetricName.parse("spurious.accuracy.night")).better
        'higher'
    """
    if name.statistic != "accuracy" or not name.part:
        return SPURIOUS.get(str(name))
    return Metric(
        name=str(name),
        aspect="robustness",
        better="higher",
        header=f"spurious {name.part} accuracy",
        help="accuracy on one set of images with a spurious cue",
        spread=0.23,
        needs=frozenset({"spurious"}),
        proportion=True,
    )
