"""OOD detection metrics, and the table of them. One convention: a higher score means more out-of-distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from pytest_qreliab.lazy import LazyModule
from pytest_qreliab.metrics.definitions import Direction, Metric
from pytest_qreliab.metrics.names import NEAR_FAR, MetricName
from pytest_qreliab.metrics.ood_scores import SCORES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pytest_qreliab.statistics.arrays import FloatArray
else:
    np = LazyModule("numpy")  # plans and lists read the table below

Positive = Literal["id", "ood"]


class GroupInfluences(NamedTuple):
    """The influence of each sample on a statistic, of mean zero in each group."""

    of_id: FloatArray  # (n_id,)
    of_ood: FloatArray  # (n_ood,)


class SortedScores:
    """The scores of ID and of OOD samples, sorted once for all statistics. Equal scores are one threshold.

    Args:
        id_scores: Scores of in-distribution samples, float64 (n_id,).
        ood_scores: Scores of OOD samples, float64 (n_ood,).

    Example:
        >>> scores = SortedScores(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
        >>> scores.auroc(), scores.fpr95("id"), scores.fpr95("ood")
        (0.875, 0.5, 0.5)
    """

    def __init__(self, id_scores: FloatArray, ood_scores: FloatArray) -> None:
        thresholds, member = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)
        id_member, ood_member = member[: len(id_scores)], member[len(id_scores) :]
        last = len(thresholds) - 1
        # Found by low scores ID is the positive class, found by high ones OOD.
        self._counts = {
            "id": _ThresholdCounts(id_member, ood_member, len(thresholds)),
            "ood": _ThresholdCounts(last - ood_member, last - id_member, len(thresholds)),
        }

    def placements(self) -> tuple[FloatArray, FloatArray]:
        """Return DeLong's structural components, OOD being the positive class.

        Returns:
            For each OOD sample the share of ID samples below it, (n_ood,), and for each ID sample the share of OOD
            samples above it, (n_id,). Ties count one half. The mean of either is the AUROC.
        """
        counts = self._counts["id"]
        below = counts.share_before(counts.found, counts.negatives)
        return below, 1 - counts.share_before(counts.passed, counts.positives)

    def auroc(self) -> float:
        """Return P(OOD score > ID score) + P(equal) / 2, sklearn's `roc_auc_score` with OOD positive."""
        return float(self.placements()[0].mean())

    def auroc_influence(self) -> GroupInfluences:
        """Return DeLong's components (1988), less their mean."""
        of_ood, of_id = self.placements()
        return GroupInfluences(of_id - of_id.mean(), of_ood - of_ood.mean())

    def average_precision(self, positive: Positive) -> float:
        """Return sklearn's `average_precision_score` of finding ID by low scores, or OOD by high ones."""
        return self._counts[positive].average_precision()

    def average_precision_influence(self, positive: Positive, *, fixed_sizes: bool = True) -> GroupInfluences:
        """Return the first-order influence of each sample on the average precision.

        It is the derivative by the sample's weight, times the size of its group.

        Args:
            positive: The positive class.
            fixed_sizes: Whether ID and OOD are independent samples of fixed sizes. Influences are then centred in each
                group, and the variance is about `of_id.var() / n_id + of_ood.var() / n_ood`. If not, the share of
                positives varies too, and it is all samples together that have mean 0, each times n over its group's.
        """
        influences = self._counts[positive].average_precision_influence()
        if fixed_sizes:
            influences = influences[0] - influences[0].mean(), influences[1] - influences[1].mean()
        return self._id_first(positive, influences)

    def fpr95(self, positive: Positive) -> float:
        """Return the share of negatives that pass at the first threshold that 95 % of the positives pass.

        With ID positive, the convention of MCM and OpenOOD's papers, it is the share of OOD accepted as ID; with OOD
        positive the share of ID flagged, another number: .318 and .971 on the same scores. Equal to sklearn's
        `roc_curve(drop_intermediate=False)`.
        """
        return self._counts[positive].rate().value

    def fpr95_influence(self, positive: Positive) -> GroupInfluences:
        """Return the first-order influence of each sample on FPR@95.

        A negative counts by whether it passes. A positive moves the threshold, and with it the rate along the ROC
        curve, whose slope is measured over as many positives to each side as resampling would move the threshold by.
        """
        rate = self._counts[positive].rate()
        return self._id_first(positive, (rate.of_positives, rate.of_negatives))

    @staticmethod
    def _id_first(positive: Positive, influences: tuple[FloatArray, FloatArray]) -> GroupInfluences:
        return GroupInfluences(*(influences if positive == "id" else influences[::-1]))


class _Rate(NamedTuple):
    """The share of negatives that pass at a threshold, and the influence of each sample on it."""

    value: float
    of_positives: FloatArray
    of_negatives: FloatArray


class _ThresholdCounts:
    """The positives and negatives at thresholds, in the order in which they pass.

    Args:
        positives: The threshold of each positive, (n,).
        negatives: The threshold of each negative, (m,).
        thresholds: The number of thresholds.
    """

    def __init__(self, positives: npt.NDArray[np.int64], negatives: npt.NDArray[np.int64], thresholds: int) -> None:
        self.positives, self.negatives = positives, negatives
        self.found = np.bincount(positives, minlength=thresholds)
        self.passed = np.bincount(negatives, minlength=thresholds)

    @staticmethod
    def share_before(counts: npt.NDArray[np.int64], at: npt.NDArray[np.int64]) -> FloatArray:
        """Return the share of counted samples before each threshold, with half of those at it."""
        share: FloatArray = (counts.cumsum() - counts / 2) / counts.sum()
        return share[at]

    def _precision(self) -> tuple[FloatArray, FloatArray]:
        """Return the precision at each threshold, and the number of samples passed there."""
        true = self.found.cumsum()
        flagged = true + self.passed.cumsum()
        return true / flagged, flagged.astype(np.float64)

    def average_precision(self) -> float:
        """Return the mean precision at the thresholds of the positives."""
        return float((self.found * self._precision()[0]).sum() / len(self.positives))

    def average_precision_influence(self) -> tuple[FloatArray, FloatArray]:
        """Return the influences of the positives and of the negatives.

        With p_k positives at threshold k, P_k positives and N_k negatives passed there, and P positives in all, the
        average precision is the sum over k of p_k / P * P_k / (P_k + N_k). A positive at k counts by its own precision
        and raises that of every threshold i from k on, by N_i / (P_i + N_i)^2; a negative lowers it, by
        P_i / (P_i + N_i)^2; each p_i times. And it is a share of P, which a positive raises.
        """
        precision, flagged = self._precision()

        def from_each_on(values: FloatArray) -> FloatArray:
            reversed_sums: FloatArray = np.cumsum((self.found * values / flagged)[::-1])[::-1]
            return reversed_sums

        of_positives = (precision - self.average_precision() + from_each_on(1 - precision))[self.positives]
        of_negatives = -len(self.negatives) / len(self.positives) * from_each_on(precision)[self.negatives]
        return of_positives, of_negatives

    def rate(self) -> _Rate:
        """Return the share of negatives that pass at the first threshold that 95 % of the positives pass."""
        n, passed = len(self.positives), self.found.cumsum()
        at = -(-19 * n // 20) - 1  # the rank of the positive at the threshold; in integers, as 0.95 is no float
        deviation = (0.95 * 0.05 * n) ** 0.5
        reach = max(1, round(1.5 * deviation))
        low, high = max(0, at - reach), min(n - 1, at + reach)
        before, threshold, after = np.searchsorted(passed, [low + 1, at + 1, high + 1])
        accepted = self.passed.cumsum()[[before, threshold, after]] / len(self.negatives)
        steps = np.diff(accepted)
        slope = steps.sum() / max(high - low, 1) * n
        if self.found[threshold] > deviation:
            # The curve is a staircase, and a step to one side alone would be halved.
            slope = steps.max() / reach * n
        beyond = (self.positives > threshold).astype(np.float64)
        rate = float(accepted[1])
        return _Rate(rate, slope * (beyond - beyond.mean()), (self.negatives <= threshold) - rate)


@dataclass(frozen=True, kw_only=True)
class OodStatistic:
    """A statistic of the scores of ID and OOD samples."""

    better: Direction
    help: str
    spread: float
    value: Callable[[SortedScores], float]
    influences: Callable[[SortedScores], GroupInfluences]
    # Whether the influence is a derivative. That on FPR@95 is a slope measured over many samples: two more are in it.
    smooth: bool = True
    method: str = "paired, influence values"


STATISTICS = {
    "auroc": OodStatistic(
        better="higher",
        help="AUROC of OOD against ID, ties count one half",
        spread=0.09,
        value=SortedScores.auroc,
        influences=SortedScores.auroc_influence,
        method="paired DeLong",
    ),
    "aupr_in": OodStatistic(
        better="higher",
        help="average precision with ID as the positive class",
        spread=0.04,
        value=lambda scores: scores.average_precision("id"),
        influences=lambda scores: scores.average_precision_influence("id"),
    ),
    "aupr_out": OodStatistic(
        better="higher",
        help="average precision with OOD as the positive class",
        spread=0.15,
        value=lambda scores: scores.average_precision("ood"),
        influences=lambda scores: scores.average_precision_influence("ood"),
    ),
    "fpr95": OodStatistic(
        better="lower",
        help="share of OOD samples accepted where 95 % of the ID samples are (ID positive)",
        spread=0.25,
        value=lambda scores: scores.fpr95("id"),
        influences=lambda scores: scores.fpr95_influence("id"),
        smooth=False,
    ),
    "fpr95_out": OodStatistic(
        better="lower",
        help="share of ID samples rejected where 95 % of the OOD samples are (OOD positive)",
        spread=0.26,
        value=lambda scores: scores.fpr95("ood"),
        influences=lambda scores: scores.fpr95_influence("ood"),
        smooth=False,
    ),
}


def _where(part: str) -> str:
    return f", mean over the {part} sets" if part in NEAR_FAR else f", on {part}" if part else ""


def find(name: MetricName) -> Metric | None:
    """Return the metric of an OOD name; None if there is none.

    Example:
        >>> find(MetricName.parse("ood.fpr95.knn.near")).header
        'OOD FPR95 knn near'
    """
    statistic, score = STATISTICS.get(name.statistic), SCORES.get(name.score)
    if statistic is None or score is None:
        return None
    return Metric(
        name=str(name),
        aspect="ood",
        better=statistic.better,
        header=" ".join(["OOD", name.statistic.upper(), name.score, *filter(None, [name.part])]),
        help=f"{statistic.help}{_where(name.part)}",
        spread=statistic.spread,
        needs=score.needs,
        reads=score.reads,
    )
