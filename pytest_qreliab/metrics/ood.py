"""OOD scores and detection metrics. One convention: a higher score means more out-of-distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pytest_qreliab.statistics.arrays import FloatArray

Features = npt.NDArray[np.floating]
Positive = Literal["id", "ood"]

NEIGHBOURS = 50
# Relative to the largest: below this a direction holds rounding errors of float32 features, or nothing at all.
LEAST_VARIANCE = 1e-8
CHUNK_ELEMENTS = 4_000_000


def scores(
    cosines: torch.Tensor | None,
    logits: torch.Tensor,
    negative_logits: torch.Tensor | None = None,
    local: FloatArray | None = None,
) -> dict[str, FloatArray]:
    """OOD scores, each of shape (n,), from logits and, but for recorded outputs, cosines, float64 (n, classes).

    `msp` is minus the largest softmax probability of the logits (Hendrycks & Gimpel 2017), `maxlogit` minus the
    largest logit, `energy` -logsumexp(logits) (Liu et al. 2020), and `mcm` minus the largest softmax probability of
    the cosines at temperature 1 (Ming et al. 2022). `msp` and `mcm` are log probabilities, which order the samples
    alike and do not tie near 1.

    `neglabel`, with `negative_logits` (n, labels), is minus the log of the softmax mass that the classes keep against
    negative labels (Jiang et al. 2024). The labels are those given: the paper mines them from WordNet, far from the
    classes, and averages over random groups of them.

    `gl-mcm`, with `local` (n,), is minus the sum of the largest global and the largest local probability (Miyai et al.
    2025, weight 1), in [-2, 0]. `local` is the largest log-softmax of an image's local cosines at temperature 1, over
    its patches and the classes.
    """
    largest, msp = _largest(logits)
    log_sum = largest + msp
    found = {"msp": msp, "maxlogit": -largest, "energy": -log_sum}
    if cosines is not None:
        found["mcm"] = _largest(cosines)[1]
    if negative_logits is not None:
        found["neglabel"] = F.softplus(sum(_largest(negative_logits)) - log_sum)
    if local is not None and cosines is not None:
        found["gl-mcm"] = -torch.exp(-found["mcm"]) - torch.from_numpy(local).exp()
    return {name: values.numpy() for name, values in found.items()}


def _largest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logit, and minus the log of its softmax probability, (n,) each; together, logsumexp."""
    largest, at = logits.max(dim=1)
    # The others' sum alone: added to 1 it would be lost where the probability is within some 1e-16 of 1.
    others = (logits - largest[:, None]).exp_().scatter_(1, at[:, None], 0).sum(dim=1)
    return largest, torch.log1p(others)


@dataclass(frozen=True)
class MahalanobisFit:
    """Class means less the mean over all, `centre` (dim,), after `whiten`, (dim, rank): float64 (classes, rank)."""

    centre: FloatArray
    whiten: FloatArray
    means: FloatArray


def fit_mahalanobis(features: Features, labels: npt.NDArray[np.int64]) -> MahalanobisFit:
    """Class means and the tied covariance within classes (Lee et al. 2018) of calibration features, (n, dim).

    The features are normalised to unit length first, as the model itself compares nothing but directions; see
    Mueller and Hein 2025 for what that gains. The covariance divides by n. Its inverse is the pseudo-inverse: with
    fewer samples than dimensions, directions with less than 1e-8 of the largest variance are left out, and nothing is
    shrunk. Classes without a sample have no mean, and are never the nearest.

    Raises ValueError for features that are not finite, or zero, or the same within every class.
    """
    unit = _unit(features)
    _check_finite(unit)
    present, member = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), unit.shape[1]))
    np.add.at(sums, member, unit)
    means = sums / np.bincount(member)[:, None]
    within = unit - means[member]
    variances, directions = np.linalg.eigh(within.T @ within / len(unit))
    if not variances[-1] > np.finfo(np.float32).eps ** 2:
        raise ValueError("all calibration features of a class are the same, so that there is no covariance")
    kept = variances > LEAST_VARIANCE * variances[-1]
    whiten = directions[:, kept] / np.sqrt(variances[kept])
    centre = unit.mean(axis=0)
    return MahalanobisFit(centre, whiten, (means - centre) @ whiten)


def mahalanobis(features: Features, fit: MahalanobisFit) -> FloatArray:
    """The squared Mahalanobis distance of each unit-normalised feature, (n, dim), to the nearest class mean: (n,).

    Products in float32, which leaves some six digits. NaN, infinity or a zero vector makes NaN.
    """
    whiten, means = fit.whiten.astype(np.float32), fit.means.astype(np.float32)
    squares = (means**2).sum(axis=1)
    result = np.empty(len(features))
    for rows in _chunks(len(features), len(fit.means) + sum(fit.whiten.shape)):
        white = (_unit(features[rows]) - fit.centre).astype(np.float32) @ whiten
        result[rows] = (white**2).sum(axis=1) + (squares - 2 * white @ means.T).min(axis=1)
    return np.maximum(result, 0.0)  # less than 0 by rounding alone


def knn(features: Features, bank: Features, k: int | None = None) -> FloatArray:
    """Distance of each feature, (n, dim), to the k-th nearest of `bank`, (calibration, dim): (n,), in [0, 2].

    Both are normalised to unit length (Sun et al. 2022). `k` is by default 50, or all there are if that is fewer; it is
    a ValueError for it to be below 1 or above the size of the bank, as for the bank to hold NaN, infinity or a zero
    vector. In `features` these make NaN. Products in float32: a distance near 0 is right to some 1e-3.
    """
    k = min(NEIGHBOURS, len(bank)) if k is None else k
    if not 1 <= k <= len(bank):
        raise ValueError(f"k = {k} of {len(bank)} neighbours")
    stored = _unit(bank).astype(np.float32)
    _check_finite(stored)
    result = np.empty(len(features))
    for rows in _chunks(len(features), len(bank) + bank.shape[1]):
        unit = _unit(features[rows]).astype(np.float32)
        nearness = unit @ stored.T
        nearness.partition(len(bank) - k, axis=1)
        kth = nearness[:, len(bank) - k]
        result[rows] = np.where(np.isfinite(unit).all(axis=1), np.sqrt(np.maximum(2 - 2 * kth, 0.0)), np.nan)
    return result


def _unit(features: Features) -> FloatArray:
    """Float64 rows of length one; NaN where a row is zero or not finite."""
    rows = features.astype(np.float64)
    with np.errstate(all="ignore"):
        unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _check_finite(unit: Features) -> None:
    if not np.isfinite(unit).all():
        raise ValueError("NaN, infinity or a zero vector in the calibration features")


def _chunks(rows: int, width: int) -> Iterator[slice]:
    """Slices of so many rows that an array of that width takes some 32 MB."""
    step = max(1, CHUNK_ELEMENTS // width)
    return (slice(start, start + step) for start in range(0, rows, step))


class SortedScores:
    """The scores of ID samples, (n_id,), and of OOD samples, (n_ood,), sorted once for all that is read off them.

    Equal scores are one threshold.
    """

    def __init__(self, id_scores: FloatArray, ood_scores: FloatArray) -> None:
        thresholds, member = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)
        id_member, ood_member = member[: len(id_scores)], member[len(id_scores) :]
        last = len(thresholds) - 1
        # Found by low scores ID is the positive class, found by high ones OOD.
        self._of = {
            "id": _ThresholdCounts(id_member, ood_member, len(thresholds)),
            "ood": _ThresholdCounts(last - ood_member, last - id_member, len(thresholds)),
        }

    def placements(self) -> tuple[FloatArray, FloatArray]:
        """DeLong's structural components, OOD being the positive class.

        For each OOD sample the share of ID samples below it, for each ID sample the share of OOD samples above it,
        ties counting one half: shapes (n_ood,), (n_id,). The mean of either is the AUROC.
        """
        of = self._of["id"]
        return of.before(of.found, of.negatives), 1 - of.before(of.passed, of.positives)

    def auroc(self) -> float:
        """P(OOD score > ID score) + P(equal) / 2: sklearn's `roc_auc_score` with OOD positive."""
        return float(self.placements()[0].mean())

    def auroc_influence(self) -> tuple[FloatArray, FloatArray]:
        """DeLong's components (1988), of ID and of OOD samples, less their mean: (n_id,) and (n_ood,)."""
        of_ood, of_id = self.placements()
        return of_id - of_id.mean(), of_ood - of_ood.mean()

    def average_precision(self, positive: Positive) -> float:
        """sklearn's `average_precision_score` of finding ID by low scores, or OOD by high ones."""
        return self._of[positive].average_precision()

    def average_precision_influence(self, positive: Positive) -> tuple[FloatArray, FloatArray]:
        """First-order influence of each ID and OOD sample on the average precision, each of mean zero.

        It is the derivative by the sample's weight, times the size of its group, centred: with ID and OOD as
        independent samples of fixed sizes, the variance is about `of_id.var() / n_id + of_ood.var() / n_ood`.
        """
        return self._id_first(positive, self._of[positive].average_precision_influence())

    def fpr95(self, positive: Positive) -> float:
        """The share of negatives that pass at the first threshold that 95 % of the positives pass.

        With ID positive, the convention of MCM and OpenOOD's papers, it is the share of OOD accepted as ID; with OOD
        positive the share of ID flagged, another number: .318 and .971 on the same scores. Equal to sklearn's
        `roc_curve(drop_intermediate=False)`.
        """
        return self._of[positive].rate()[0]

    def fpr95_influence(self, positive: Positive) -> tuple[FloatArray, FloatArray]:
        """First-order influence of each ID and OOD sample on FPR@95, each of mean zero.

        A negative counts by whether it passes. A positive moves the threshold, and with it the rate along the ROC
        curve, whose slope is measured over as many positives to each side as resampling would move the threshold by.
        """
        return self._id_first(positive, self._of[positive].rate()[1:])

    @staticmethod
    def _id_first(positive: Positive, influences: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
        return influences if positive == "id" else influences[::-1]


class _ThresholdCounts:
    """Positives and negatives at thresholds in the order in which they pass, by the threshold of each, and counted."""

    def __init__(self, positives: npt.NDArray[np.int64], negatives: npt.NDArray[np.int64], thresholds: int) -> None:
        self.positives, self.negatives = positives, negatives
        self.found = np.bincount(positives, minlength=thresholds)
        self.passed = np.bincount(negatives, minlength=thresholds)

    @staticmethod
    def before(counts: npt.NDArray[np.int64], at: npt.NDArray[np.int64]) -> FloatArray:
        """The share of what is counted that passes before each of the thresholds, and half of what passes there."""
        share: FloatArray = (counts.cumsum() - counts / 2) / counts.sum()
        return share[at]

    def _precision(self) -> tuple[FloatArray, FloatArray]:
        """At each threshold the precision, and the number that has passed."""
        true = self.found.cumsum()
        flagged = true + self.passed.cumsum()
        return true / flagged, flagged.astype(np.float64)

    def average_precision(self) -> float:
        return float((self.found * self._precision()[0]).sum() / len(self.positives))

    def average_precision_influence(self) -> tuple[FloatArray, FloatArray]:
        """That of the positives and of the negatives.

        With p_k positives at threshold k, P_k positives and N_k negatives passed there, and P positives in all, the
        average precision is the sum over k of p_k / P * P_k / (P_k + N_k). A positive at k counts by its own precision
        and raises that of every threshold i from k on, by N_i / (P_i + N_i)^2; a negative lowers it, by
        P_i / (P_i + N_i)^2; each p_i times.
        """
        precision, flagged = self._precision()

        def from_each_on(values: FloatArray) -> FloatArray:
            reversed_sums: FloatArray = np.cumsum((self.found * values / flagged)[::-1])[::-1]
            return reversed_sums

        of_positives = (precision + from_each_on(1 - precision))[self.positives]
        of_negatives = -len(self.negatives) / len(self.positives) * from_each_on(precision)[self.negatives]
        return of_positives - of_positives.mean(), of_negatives - of_negatives.mean()

    def rate(self) -> tuple[float, FloatArray, FloatArray]:
        """The share of negatives that pass where 95 % of the positives do, and the influence of either."""
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
        return rate, slope * (beyond - beyond.mean()), (self.negatives <= threshold) - rate


# What each OOD statistic is, and the influence that ID and OOD samples have on it.
STATISTICS: dict[
    str, tuple[Callable[[SortedScores], float], Callable[[SortedScores], tuple[FloatArray, FloatArray]]]
] = {
    "auroc": (SortedScores.auroc, SortedScores.auroc_influence),
    "aupr_in": (
        lambda ranked: ranked.average_precision("id"),
        lambda ranked: ranked.average_precision_influence("id"),
    ),
    "aupr_out": (
        lambda ranked: ranked.average_precision("ood"),
        lambda ranked: ranked.average_precision_influence("ood"),
    ),
    "fpr95": (lambda ranked: ranked.fpr95("id"), lambda ranked: ranked.fpr95_influence("id")),
    "fpr95_out": (lambda ranked: ranked.fpr95("ood"), lambda ranked: ranked.fpr95_influence("ood")),
}
