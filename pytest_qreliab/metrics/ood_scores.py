"""The table of OOD scores. One convention: a higher score means more out-of-distribution.

A new score is a class and its line in the table. `FittedScore`s are fitted on calibration features, all others are read
off the samples alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pytest_qreliab.lazy import LazyModule
from pytest_qreliab.metrics.definitions import Need, Source

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pytest_qreliab.statistics.arrays import FeatureArray, FloatArray, IntArray
else:
    np = LazyModule("numpy")  # plans and lists read the table below

T = TypeVar("T")

NEIGHBOURS = 50
# Relative to the largest: below this a direction holds rounding errors of float32 features, or nothing at all.
LEAST_VARIANCE = 1e-8
CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class ScoredSamples:
    """The outputs of a model for n samples that OOD scores are read off."""

    logits: torch.Tensor  # float64 (n, classes)
    cosines: torch.Tensor | None = None  # float64 (n, classes), with the text features of the classes
    negative_logits: torch.Tensor | None = None  # float64 (n, labels), of the negative labels
    # (n,), the largest log-softmax of the local cosines at temperature 1, over patches and classes.
    local: FloatArray | None = None
    # float64 (n, classes), as recorded: the logits are their logarithms, and a constant of each sample is lost.
    probabilities: torch.Tensor | None = None

    @property
    def holds(self) -> frozenset[Need | Source]:
        """The parts that a score can read."""
        there: dict[Need | Source, bool] = {
            "logits": self.probabilities is None,
            "cosines": self.cosines is not None,
            "negatives": self.negative_logits is not None,
            "local": self.local is not None,
        }
        return frozenset(name for name, is_there in there.items() if is_there)

    @cached_property
    def top_logit(self) -> TopLogit:
        """The largest logit of each sample."""
        return TopLogit.find(self.logits)

    @cached_property
    def top_cosine(self) -> TopLogit:
        """The largest cosine of each sample, as a logit at temperature 1."""
        return TopLogit.find(_given(self.cosines, "cosines"))


@dataclass(frozen=True)
class TopLogit:
    """The largest logit of each sample."""

    value: torch.Tensor  # (n,)
    surprise: torch.Tensor  # (n,), minus the log of its softmax probability

    @classmethod
    def find(cls, logits: torch.Tensor) -> TopLogit:
        """Find the largest of logits (n, classes)."""
        largest, at = logits.max(dim=1)
        # The others' sum alone: added to 1 it would be lost where the probability is within some 1e-16 of 1.
        others = (logits - largest[:, None]).exp_().scatter_(1, at[:, None], 0).sum(dim=1)
        return cls(largest, others.log1p())

    @property
    def log_sum(self) -> torch.Tensor:
        """logsumexp, (n,)."""
        return self.value + self.surprise


@dataclass(frozen=True)
class CalibrationFeatures:
    """The calibration features that scores are fitted on, not normalised."""

    features: FeatureArray  # (n, dim)
    labels: IntArray | None = None  # (n,)

    @property
    def holds(self) -> frozenset[Need | Source]:
        """The parts that a score can be fitted on."""
        return frozenset({"features", "calibration"} if self.labels is None else {"features", "calibration", "labels"})


# The score, (n,), of features (n, dim).
FeatureScorer: TypeAlias = "Callable[[FeatureArray], FloatArray]"


@dataclass(frozen=True)
class SampleScore:
    """The base of the scores that are read off the samples alone."""

    name: str
    needs: frozenset[Need] = frozenset()
    reads: frozenset[Source] = frozenset()

    def score(self, samples: ScoredSamples) -> torch.Tensor:
        """Return the score of each sample, float64 (n,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class FittedScore:
    """The base of the scores that are fitted on calibration features."""

    name: str
    needs: frozenset[Need] = frozenset({"calibration"})
    reads: frozenset[Source] = frozenset({"features"})

    def fit(self, calibration: CalibrationFeatures) -> FeatureScorer:
        """Return the function that scores features. Raise ValueError if there is nothing to fit."""
        raise NotImplementedError


class MaxSoftmax(SampleScore):
    """Minus the log of the largest softmax probability of the logits (Hendrycks & Gimpel 2017).

    Log probabilities order the samples as probabilities do, and do not tie near 1.
    """

    def score(self, samples: ScoredSamples) -> torch.Tensor:
        """Return the score of each sample, at least 0."""
        return samples.top_logit.surprise


class MaxLogit(SampleScore):
    """Minus the largest logit."""

    def score(self, samples: ScoredSamples) -> torch.Tensor:
        """Return the score of each sample."""
        return -samples.top_logit.value


class Energy(SampleScore):
    """-logsumexp of the logits (Liu et al. 2020)."""

    def score(self, samples: ScoredSamples) -> torch.Tensor:
        """Return the score of each sample."""
        return -samples.top_logit.log_sum


class MaxConceptMatching(SampleScore):
    """Minus the log of the largest softmax probability of the cosines at temperature 1 (MCM, Ming et al. 2022)."""

    def score(self, samples: ScoredSamples) -> torch.Tensor:
        """Return the score of each sample, at least 0."""
        return samples.top_cosine.surprise


class GlobalLocalMatching(SampleScore):
    """Minus the sum of the largest global and the largest local probability (GL-MCM, Miyai et al. 2025, weight 1)."""

    def score(self, samples: ScoredSamples) -> torch.Tensor:
        """Return the score of each sample, in [-2, 0]."""
        import torch

        local = torch.from_numpy(_given(samples.local, "local features"))
        return -torch.exp(-samples.top_cosine.surprise) - local.exp()


class NegativeLabels(SampleScore):
    """Minus the log of the softmax mass that the classes keep against negative labels (NegLabel, Jiang et al. 2024).

    The labels are those given: the paper mines them from WordNet, far from the classes, and averages over random
    groups of them.
    """

    def score(self, samples: ScoredSamples) -> torch.Tensor:
        """Return the score of each sample, at least 0."""
        from torch.nn import functional as F

        negatives = TopLogit.find(_given(samples.negative_logits, "negative labels"))
        return F.softplus(negatives.log_sum - samples.top_logit.log_sum)


class Mahalanobis(FittedScore):
    """The squared Mahalanobis distance to the nearest class mean (Lee et al. 2018)."""

    def fit(self, calibration: CalibrationFeatures) -> FeatureScorer:
        """Fit the class means and the covariance."""
        fit = fit_mahalanobis(calibration.features, _given(calibration.labels, "labels"))
        return lambda features: mahalanobis(features, fit)


class NearestNeighbours(FittedScore):
    """The distance to the 50th nearest calibration feature (Sun et al. 2022)."""

    def fit(self, calibration: CalibrationFeatures) -> FeatureScorer:
        """Keep the calibration features."""
        return lambda features: knn(features, calibration.features)


# The scores in the order in which results list them.
SCORES: dict[str, SampleScore | FittedScore] = {
    score.name: score
    for score in (
        MaxSoftmax("msp"),
        MaxLogit("maxlogit", reads=frozenset({"logits"})),
        Energy("energy", reads=frozenset({"logits"})),
        MaxConceptMatching("mcm", reads=frozenset({"cosines"})),
        GlobalLocalMatching("gl-mcm", frozenset({"local"}), frozenset({"cosines"})),
        NegativeLabels("neglabel", frozenset({"negatives"})),
        Mahalanobis("mahalanobis", frozenset({"labels"})),
        NearestNeighbours("knn"),
    )
}


def score_samples(samples: ScoredSamples) -> dict[str, FloatArray]:
    """Return every score that the samples allow.

    Args:
        samples: The outputs of a model for n samples.

    Returns:
        The scores by name, float64 (n,) each, in the order of the table.

    Example:
        >>> import torch
        >>> scores = score_samples(ScoredSamples(logits=torch.tensor([[9.0, 0.0], [1.0, 1.0]]).double()))
        >>> list(scores), scores["maxlogit"]
        (['msp', 'maxlogit', 'energy'], array([-9., -1.]))
    """
    return {
        name: score.score(samples).numpy()
        for name, score in SCORES.items()
        if isinstance(score, SampleScore) and score.needs | score.reads <= samples.holds
    }


def fitted_scores(calibration: CalibrationFeatures) -> dict[str, FittedScore]:
    """Return the scores that can be fitted on calibration features, in the order of the table.

    Example:
        >>> import numpy as np
        >>> list(fitted_scores(CalibrationFeatures(np.eye(3))))  # without labels
        ['knn']
    """
    return {
        name: score
        for name, score in SCORES.items()
        if isinstance(score, FittedScore) and score.needs | score.reads <= calibration.holds
    }


def _given(value: T | None, what: str) -> T:
    """Return a value that a score declares to need."""
    if value is None:
        raise ValueError(f"there are no {what} to score with")
    return value


@dataclass(frozen=True)
class MahalanobisFit:
    """The class means of calibration features, and the whitening of their covariance within classes."""

    centre: FloatArray  # (dim,), the mean over all samples
    whiten: FloatArray  # (dim, rank)
    means: FloatArray  # (classes, rank), less the centre and whitened


def fit_mahalanobis(features: FeatureArray, labels: IntArray) -> MahalanobisFit:
    """Fit class means and the tied covariance within classes (Lee et al. 2018).

    The features are normalised to unit length first, as the model itself compares nothing but directions; see
    Mueller and Hein 2025 for the gain. The covariance divides by n. Its inverse is the pseudo-inverse: with
    fewer samples than dimensions, directions with less than 1e-8 of the largest variance are left out, and nothing is
    shrunk. Classes without a sample have no mean, and are never the nearest.

    Args:
        features: Calibration features, (n, dim).
        labels: Their classes, (n,).

    Raises:
        ValueError: The features are not finite, or zero, or the same within every class.

    Example:
        >>> fit = fit_mahalanobis(np.array([[1.0, 0.1], [1.0, 0.0], [0.1, 1.0], [0.0, 1.0]]), np.array([0, 0, 1, 1]))
        >>> fit.means.shape
        (2, 2)
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


def mahalanobis(features: FeatureArray, fit: MahalanobisFit) -> FloatArray:
    """Return the squared Mahalanobis distance of each feature to the nearest class mean.

    Products are in float32, which leaves some six digits.

    Args:
        features: Features, (n, dim), which are normalised to unit length. NaN, infinity or a zero vector makes NaN.
        fit: The class means and the covariance.

    Returns:
        The squared distances, (n,).

    Example:
        >>> features = np.array([[1.0, 0.1], [1.0, 0.0], [0.1, 1.0], [0.0, 1.0]])
        >>> fit = fit_mahalanobis(features, np.array([0, 0, 1, 1]))
        >>> mahalanobis(np.array([[1.0, 0.05], [1.0, 1.0]]), fit).round() > 50
        array([False,  True])
    """
    whiten, means = fit.whiten.astype(np.float32), fit.means.astype(np.float32)
    squares = (means**2).sum(axis=1)
    result = np.empty(len(features))
    for rows in _chunks(len(features), len(fit.means) + sum(fit.whiten.shape)):
        white = (_unit(features[rows]) - fit.centre).astype(np.float32) @ whiten
        result[rows] = (white**2).sum(axis=1) + (squares - 2 * white @ means.T).min(axis=1)
    return np.maximum(result, 0.0)  # less than 0 by rounding alone


def knn(features: FeatureArray, bank: FeatureArray, k: int | None = None) -> FloatArray:
    """Return the distance of each feature to its k-th nearest calibration feature (Sun et al. 2022).

    Both are normalised to unit length. Products are in float32: a distance near 0 is right to some 1e-3.

    Args:
        features: Features, (n, dim). NaN, infinity or a zero vector makes NaN.
        bank: Calibration features, (calibration, dim).
        k: Which neighbour; by default the 50th, or the last one of a smaller bank.

    Returns:
        The distances, (n,), in [0, 2].

    Raises:
        ValueError: `k` is below 1 or above the size of the bank, or the bank holds NaN, infinity or a zero vector.

    Example:
        >>> knn(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), k=1)
        array([0.])
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


def _unit(features: FeatureArray) -> FloatArray:
    """Return float64 rows of length one; NaN for a row that is zero or not finite."""
    rows = features.astype(np.float64)
    with np.errstate(all="ignore"):
        unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _check_finite(unit: FeatureArray) -> None:
    if not np.isfinite(unit).all():
        raise ValueError("NaN, infinity or a zero vector in the calibration features")


def _chunks(rows: int, width: int) -> Iterator[slice]:
    """Return slices of so many rows that an array of that width takes some 32 MB."""
    step = max(1, CHUNK_ELEMENTS // width)
    return (slice(start, start + step) for start in range(0, rows, step))
