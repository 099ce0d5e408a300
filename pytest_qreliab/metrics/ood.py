"""OOD scores and detection metrics. One convention: a higher score means more out-of-distribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating]
Counts = npt.NDArray[np.integer] | npt.NDArray[np.floating]
Positive = Literal["id", "ood"]

NEIGHBOURS = 50
# Relative to the largest: below this a direction holds rounding errors of float32 features, or nothing at all.
LEAST_VARIANCE = 1e-8
CHUNK_ELEMENTS = 4_000_000


def scores(cosines: Floats, logit_scale: float, logit_bias: float = 0.0) -> dict[str, Floats]:
    """OOD scores from cosines, (n, classes), each of shape (n,).

    With logits = logit_scale * cosines + logit_bias:
    `msp` is minus the largest softmax probability of the logits (Hendrycks & Gimpel 2017), `maxlogit` minus the
    largest logit, `energy` -logsumexp(logits) (Liu et al. 2020), and `mcm` minus the largest softmax
    probability of the cosines at temperature 1 (Ming et al. 2022). `msp` and `mcm` are log probabilities, which
    order the samples alike and do not tie near 1.
    """
    logits = logit_scale * cosines + logit_bias
    return {
        "msp": -log_softmax(logits, axis=1).max(axis=1),
        "maxlogit": -logits.max(axis=1),
        "energy": -logsumexp(logits, axis=1),
        "mcm": -log_softmax(cosines, axis=1).max(axis=1),
    }


def gl_mcm(cosines: Floats, local: Floats) -> Floats:
    """GL-MCM (Miyai et al. 2025, weight 1): minus the sum of the largest global and the largest local probability.

    `cosines` are (n, classes); `local`, (n,), is the largest log-softmax of an image's local cosines at temperature 1,
    over its patches and the classes. The result, (n,), is in [-2, 0].
    """
    result: Floats = -np.exp(log_softmax(cosines, axis=1).max(axis=1)) - np.exp(local)
    return result


def neglabel(logits: Floats, negative_logits: Floats) -> Floats:
    """NegLabel (Jiang et al. 2024): minus the log of the softmax mass that the classes keep against negative labels.

    `logits` are (n, classes), `negative_logits` (n, labels), both at the model's logit scale; a bias makes no
    difference. The result, (n,), is at least 0, as a log probability so that it does not tie where the share is
    near 1. The labels are those given: the paper mines them from WordNet, far from the classes, and averages over
    random groups of them.
    """
    advantage: Floats = logsumexp(logits, axis=1) - logsumexp(negative_logits, axis=1)
    return np.logaddexp(0.0, -advantage)


@dataclass(frozen=True)
class MahalanobisFit:
    """Class means less the mean over all, `centre` (dim,), after `whiten`, (dim, rank): float64 (classes, rank)."""

    centre: Floats
    whiten: Floats
    means: Floats


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


def mahalanobis(features: Features, fit: MahalanobisFit) -> Floats:
    """The squared Mahalanobis distance of each unit-normalised feature, (n, dim), to the nearest class mean: (n,).

    NaN, infinity or a zero vector makes NaN.
    """
    squares = (fit.means**2).sum(axis=1)
    result = np.empty(len(features))
    for rows in _chunks(len(features), len(fit.means) + sum(fit.whiten.shape)):
        white = (_unit(features[rows]) - fit.centre) @ fit.whiten
        result[rows] = (white**2).sum(axis=1) + (squares - 2 * white @ fit.means.T).min(axis=1)
    return np.maximum(result, 0.0)  # less than 0 by rounding alone


def knn(features: Features, bank: Features, k: int | None = None) -> Floats:
    """Distance of each feature, (n, dim), to the k-th nearest of `bank`, (calibration, dim): (n,), in [0, 2].

    Both are normalised to unit length (Sun et al. 2022). `k` is by default 50, or all there are if that is fewer; it is
    a ValueError for it to be below 1 or above the size of the bank, as for the bank to hold NaN, infinity or a zero
    vector. In `features` these make NaN.
    """
    k = min(NEIGHBOURS, len(bank)) if k is None else k
    if not 1 <= k <= len(bank):
        raise ValueError(f"k = {k} of {len(bank)} neighbours")
    stored = _unit(bank)
    _check_finite(stored)
    result = np.empty(len(features))
    for rows in _chunks(len(features), len(bank) + bank.shape[1]):
        unit = _unit(features[rows])
        nearness = unit @ stored.T
        nearness.partition(len(bank) - k, axis=1)
        kth = nearness[:, len(bank) - k]
        result[rows] = np.where(np.isfinite(unit).all(axis=1), np.sqrt(np.maximum(2 - 2 * kth, 0.0)), np.nan)
    return result


def _unit(features: Features) -> Floats:
    """Float64 rows of length one; NaN where a row is zero or not finite."""
    rows = features.astype(np.float64)
    with np.errstate(all="ignore"):
        unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _check_finite(unit: Floats) -> None:
    if not np.isfinite(unit).all():
        raise ValueError("NaN, infinity or a zero vector in the calibration features")


def _chunks(rows: int, width: int) -> Iterator[slice]:
    """Slices of so many rows that an array of that width takes some 32 MB."""
    step = max(1, CHUNK_ELEMENTS // width)
    return (slice(start, start + step) for start in range(0, rows, step))


def placements(id_scores: Floats, ood_scores: Floats) -> tuple[Floats, Floats]:
    """DeLong's structural components, OOD being the positive class.

    For each OOD sample the share of ID samples below it, for each ID sample the share of OOD samples above
    it, ties counting one half: shapes (n_ood,), (n_id,). The mean of either is the AUROC. By midranks in
    O(n log n) (Sun & Xu 2014).
    """
    n_id, n_ood = len(id_scores), len(ood_scores)
    ranks = rankdata(np.concatenate([ood_scores, id_scores]))
    of_ood = (ranks[:n_ood] - rankdata(ood_scores)) / n_id
    of_id = 1.0 - (ranks[n_ood:] - rankdata(id_scores)) / n_ood
    return of_ood, of_id


def auroc(id_scores: Floats, ood_scores: Floats) -> float:
    """P(OOD score > ID score) + P(equal) / 2: sklearn's `roc_auc_score` with OOD positive."""
    return float(placements(id_scores, ood_scores)[0].mean())


class FprAt95:
    """FPR@95 of two samples of scores, sorted once, for any number of bootstrap replicates.

    With `positive` "id" (the convention of MCM and OpenOOD's papers) it is the share of OOD samples accepted as ID at
    the first threshold that accepts 95 % of the ID samples, those at or below it. With "ood" it is the share of ID
    samples flagged as OOD at the first, the highest, threshold that flags 95 % of the OOD samples, those at or above
    it. (.318 and .971 on the same scores.) Both are read off sklearn's `roc_curve(drop_intermediate=False)`.
    """

    def __init__(self, id_scores: Floats, ood_scores: Floats, positive: Positive = "id") -> None:
        # Mirrored, the second question is the first.
        self._swapped = positive == "ood"
        positives, negatives = (-ood_scores, -id_scores) if self._swapped else (id_scores, ood_scores)
        self._positives = np.argsort(positives, kind="stable")
        self._negatives = np.argsort(negatives, kind="stable")
        # The negatives accepted where the threshold is the positive of each rank.
        self._accepted = np.searchsorted(negatives[self._negatives], positives[self._positives], side="right")
        # Resampling moves the 95 % quantile by sqrt(.95 * .05 * n) ranks, so that six of these hold all but 2e-9.
        n = len(positives)
        spread = 6 * (0.95 * 0.05 * n) ** 0.5 + 1
        self._usual = self._window(max(0, int(0.95 * n - spread)), min(n, int(0.95 * n + spread) + 1))

    def __call__(self, id_counts: Counts | None = None, ood_counts: Counts | None = None) -> Floats:
        """FPR@95 of each replicate, float64 (replicates,); without counts that of the samples themselves, ().

        The counts, of any integer or float dtype, (replicates, n_id) and (replicates, n_ood), say how often each
        sample occurs in each replicate; the threshold is found anew in each.
        """
        if id_counts is None or ood_counts is None:
            once = (np.ones((1, len(order)), dtype=np.int64) for order in (self._positives, self._negatives))
            value: Floats = self._values(*once)[0]
            return value
        return self._values(*((ood_counts, id_counts) if self._swapped else (id_counts, ood_counts)))

    def _values(self, positives: Counts, negatives: Counts) -> Floats:
        values = self._within(self._usual, positives, negatives)
        missed = np.isnan(values)
        if missed.any():
            everywhere = self._window(0, len(self._positives))
            values[missed] = self._within(everywhere, positives[missed], negatives[missed])
        return values

    def _window(self, low: int, high: int) -> tuple[_Ranks, _Ranks]:
        """The positives of ranks [low, high), and the negatives between the thresholds that these are."""
        accepted = self._accepted[low:high]
        return _Ranks(self._positives, low, high), _Ranks(self._negatives, int(accepted[0]), int(accepted[-1]))

    def _within(self, window: tuple[_Ranks, _Ranks], positives: Counts, negatives: Counts) -> Floats:
        """The value of each replicate whose threshold lies in the window, NaN for the others."""
        of_positives, of_negatives = window
        below, total = of_positives.weights(positives)
        short = (20 * below < 19 * total[:, None]).sum(axis=1)  # in integers: 0.95 is no float
        found = (short > 0) & (short < below.shape[1])
        rank = of_positives.low + np.where(found, short, 1) - 1
        below, total = of_negatives.weights(negatives)
        at = self._accepted[rank] - of_negatives.low
        return np.where(found, below[np.arange(len(at)), at] / total, np.nan)


class _Ranks:
    """Reads the counts of samples in the order of their scores, within the ranks [low, high)."""

    def __init__(self, order: npt.NDArray[np.int64], low: int, high: int) -> None:
        self.low, self._inside = low, order[low:high]
        self._from_below = 2 * low < len(order)  # the fewer are added up; sorted, they are read faster
        self._beside = np.sort(order[:low] if self._from_below else order[low:])

    def weights(self, counts: Counts) -> tuple[Floats, Floats]:
        """What is below each rank from low to high, (replicates, high - low + 1), and in all, (replicates,)."""
        total = counts.sum(axis=1, dtype=np.float64)
        beside = np.take(counts, self._beside, axis=1).sum(axis=1, dtype=np.float64)
        below = np.empty((len(counts), len(self._inside) + 1))
        below[:, 0] = beside if self._from_below else total - beside
        below[:, 1:] = np.take(counts, self._inside, axis=1)
        return np.cumsum(below, axis=1, out=below), total


def fpr_at_95(
    id_scores: Floats, ood_scores: Floats, id_counts: Counts | None = None, ood_counts: Counts | None = None
) -> Floats:
    """Share of OOD samples accepted where 95 % of the ID samples are: `FprAt95` with ID as the positive class."""
    return FprAt95(id_scores, ood_scores)(id_counts, ood_counts)


def fpr_at_95_ood_positive(
    id_scores: Floats, ood_scores: Floats, id_counts: Counts | None = None, ood_counts: Counts | None = None
) -> Floats:
    """Share of ID samples flagged where 95 % of the OOD samples are: `FprAt95` with OOD as the positive class."""
    return FprAt95(id_scores, ood_scores, "ood")(id_counts, ood_counts)


def aupr_in(id_scores: Floats, ood_scores: Floats) -> float:
    """Average precision of finding ID samples by their low scores: `average_precision_score` of sklearn."""
    return _PrecisionRecall(-id_scores, -ood_scores).average


def aupr_out(id_scores: Floats, ood_scores: Floats) -> float:
    """Average precision of finding OOD samples by their high scores: `average_precision_score` of sklearn."""
    return _PrecisionRecall(ood_scores, id_scores).average


def aupr_influence(id_scores: Floats, ood_scores: Floats, positive: Positive = "ood") -> tuple[Floats, Floats]:
    """First-order influence of each sample on the average precision, (n_id,) and (n_ood,), each of mean zero.

    It is the derivative of the average precision by the sample's weight, times the size of its group, centred: with
    ID and OOD as independent samples of fixed sizes, the variance of the average precision is about
    `of_id.var() / n_id + of_ood.var() / n_ood` (delta method). In O(n log n).
    """
    if positive == "id":
        of_id, of_ood = _PrecisionRecall(-id_scores, -ood_scores).influence()
    else:
        of_ood, of_id = _PrecisionRecall(ood_scores, id_scores).influence()
    return of_id, of_ood


class _PrecisionRecall:
    """The precision-recall curve of positives to be found by high scores; equal scores are one threshold.

    With p_k positives at threshold k, P_k positives and N_k negatives at or above it, and P positives in all, the
    average precision is the sum over k of p_k / P * P_k / (P_k + N_k).
    """

    def __init__(self, positives: Floats, negatives: Floats) -> None:
        thresholds, member = np.unique(-np.concatenate([positives, negatives]), return_inverse=True)
        self._positives, self._negatives = member[: len(positives)], member[len(positives) :]
        self._found = np.bincount(self._positives, minlength=len(thresholds))
        self._true = np.cumsum(self._found)
        self._flagged = self._true + np.cumsum(np.bincount(self._negatives, minlength=len(thresholds)))
        self._precision = self._true / self._flagged
        self.average = float((self._found * self._precision).sum() / len(positives))

    def influence(self) -> tuple[Floats, Floats]:
        """That of the positives and of the negatives.

        A positive at k counts by its own precision and raises that of every threshold i from k on, by
        N_i / (P_i + N_i)^2; a negative lowers it, by P_i / (P_i + N_i)^2; each p_i times.
        """

        def from_each_on(values: Floats) -> Floats:
            reversed_sums: Floats = np.cumsum((self._found * values / self._flagged)[::-1])[::-1]
            return reversed_sums

        of_positives = (self._precision + from_each_on(1 - self._precision))[self._positives]
        lost = from_each_on(self._precision)[self._negatives]
        of_negatives = -len(self._negatives) / len(self._positives) * lost
        return of_positives - of_positives.mean(), of_negatives - of_negatives.mean()
