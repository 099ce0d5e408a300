"""Features and weights by rank: their directions, and the error in each.

Directions are the right singular vectors of the centred full-precision features, shape (n, dim), and come in the order
of falling variance, as in the study. All sums over samples are taken some rows at a time, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pytest_qreliab.metrics.definitions import RANK_BANDS
from pytest_qreliab.statistics.arrays import FeatureArray, FloatArray, IntArray
from pytest_qreliab.statistics.influence import Estimate

CHUNK_ROWS = 4096
# The SQNR of two equal models, in dB: residuals below the resolution of float32 look like none.
HIGHEST_SQNR = 20 * np.log10(2.0**24)
# Squared singular values up to this share of the largest are zero but for rounding.
NOTHING = 1e-12
ROUNDED = 9  # decimals, so that equal features differ in nothing
WIDE = 128  # features at least this wide have the study's bands
RANKS = ("effective_rank", "stable_rank", "participation_ratio")


def bands(width: int) -> dict[str, tuple[int, int]]:
    """Return the bands of low, middle and high ranks.

    Those of the study are 0 to 8, 8 to 64 and 64 on. Features narrower than 128 have bands of the same shares as its
    towers of width 512: the first 1/64, then up to 1/8, then the rest. Each has at least one rank, if there are three.

    Args:
        width: The width of the features.

    Returns:
        By name, the first rank of each band and the one after its last, counted from 0.

    Example:
        >>> bands(512)
        {'low_rank': (0, 8), 'mid_rank': (8, 64), 'high_rank': (64, 512)}
    """
    first, second = (8, 64) if width >= WIDE else (max(1, round(width / 64)), max(2, round(width / 8)))
    return dict(zip(RANK_BANDS, ((0, first), (first, second), (second, width)), strict=True))


def effective_rank(power: FloatArray) -> float:
    """Compute the effective rank (Roy & Vetterli 2007).

    It is exp(-sum p log p) with p = power / sum power. Power is squared singular values, as in the study. Roy &
    Vetterli take singular values.

    Args:
        power: Squared singular values, descending, shape (rank,).

    Returns:
        The effective rank, from 1 to their number. It is NaN if all are 0.

    Example:
        >>> import numpy as np
        >>> round(effective_rank(np.array([1.0, 1.0, 0.0])), 6)
        2.0
    """
    if not power[0] > 0:
        return float("nan")
    p = _shares(power)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def _shares(power: FloatArray) -> FloatArray:
    """Return the share of each direction, 0 if it is only rounding."""
    shares: FloatArray = np.where(power > NOTHING * power[0], power, 0) / power.sum()
    return shares


def residual_ratio(full: FeatureArray, other: FeatureArray) -> float:
    """Compute the relative mean square of the error of features.

    It is relative to the mean square of the centred features. `FeaturePair.residual_ratio` is the same by bands.

    Args:
        full: Full-precision features, shape (n, dim).
        other: Features of another model for the same samples, shape (n, dim).

    Returns:
        The ratio, at least 0.

    Example:
        >>> import numpy as np
        >>> residual_ratio(np.array([[1.0], [-1.0]]), np.array([[1.5], [-1.0]]))
        0.125
    """
    signal = np.square(full - full.mean(axis=0, dtype=np.float64)).sum()
    return float(np.square(other.astype(np.float64) - full).sum() / signal)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The directions in which the features of an image set vary.

    Example:
        >>> import numpy as np
        >>> spectrum = Spectrum.fit(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        >>> spectrum.power.round(6).tolist()
        [4.5, 0.5]
        >>> round(spectrum.stable_rank, 3), round(spectrum.participation_ratio, 3), round(spectrum.effective_rank, 3)
        (1.111, 1.22, 1.384)
    """

    mean: FloatArray  # (dim,)
    power: FloatArray  # (dim,), the mean squared projection of the centred features on each direction, descending
    directions: FloatArray  # (dim, dim), in columns

    @classmethod
    def fit(cls, features: FeatureArray) -> Spectrum:
        """Return the spectrum of features, shape (n, dim)."""
        mean = features.mean(axis=0, dtype=np.float64)
        gram = sum((part.T @ part for part in _centred(features, mean)), np.zeros((len(mean), len(mean))))
        power, directions = np.linalg.eigh(gram / len(features))
        return cls(mean, power[::-1].clip(min=0), directions[:, ::-1])

    @property
    def effective_rank(self) -> float:
        """The effective rank, at most min(n - 1, dim); NaN without variance."""
        return effective_rank(self.power)

    @property
    def stable_rank(self) -> float:
        """The stable rank, sum s^2 / max s^2.

        It is at least 1, and NaN if nothing varies.
        """
        return float(self.power.sum() / self.power[0]) if self.power[0] > 0 else float("nan")

    @property
    def participation_ratio(self) -> float:
        """The participation ratio, (sum s^2)^2 / sum s^4.

        It is at least 1, and NaN if nothing varies.
        """
        return float(self.power.sum() ** 2 / (self.power**2).sum()) if self.power[0] > 0 else float("nan")

    def estimate(self, statistic: str, features: FeatureArray, group: str) -> Estimate:
        """Return a rank with the influence of each sample on it.

        By first-order perturbation, a sample moves the power of a direction by its own power there less the mean.

        Args:
            statistic: One of `RANKS`.
            features: The features that the spectrum was fitted to, shape (n, dim).
            group: The name of their image set.
        """
        value, total = float(getattr(self, statistic)), self.power.sum()
        if statistic == "effective_rank":
            p = _shares(self.power)
            log = np.log(p, out=np.zeros_like(p), where=p > 0)
            slope = np.where(p > 0, -(value / total) * (log + np.log(value)), 0)
        elif statistic == "stable_rank":
            slope = np.full_like(self.power, 1 / self.power[0])
            slope[0] -= total / self.power[0] ** 2
        else:
            slope = 2 * value * (1 / total - self.power / (self.power**2).sum())
        parts = ((part @ self.directions) ** 2 - self.power for part in _centred(features, self.mean))
        return Estimate(value, {group: np.concatenate([part @ slope for part in parts])})


class FeaturePair:
    """Full-precision and quantized features of the same samples.

    Args:
        spectrum: The spectrum of the full-precision features.
        full: Full-precision features, shape (n, dim).
        quantized: Quantized features, shape (n, dim).
        group: The name of the image set.

    Attributes:
        bands: By name, the first and end rank of each band; "" names all ranks.
        signal: The mean squares of the centred full-precision features by direction, shape (dim,): the study's e_s.
        residual: The mean squares of the differences by full-precision direction, shape (dim,): the study's e_q.

    Example:
        >>> import numpy as np
        >>> full = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> pair = FeaturePair(Spectrum.fit(full), full, full + [0.0, 0.5], "ID")
        >>> pair.residual.round(6).tolist(), round(pair.residual_ratio("").value, 6)
        ([0.0, 0.25], 0.05)
        >>> pair.cka.value
        1.0
    """

    def __init__(self, spectrum: Spectrum, full: FeatureArray, quantized: FeatureArray, group: str) -> None:
        self._spectrum, self._full, self._quantized, self._group = spectrum, full, quantized, group
        self.bands = {"": (0, full.shape[1]), **bands(full.shape[1])}
        self.signal, self.residual = np.zeros((2, full.shape[1]))
        parts = []
        for rows, centred in zip(_rows(len(full)), _centred(full, spectrum.mean), strict=True):
            squares = (centred @ spectrum.directions) ** 2
            errors = ((quantized[rows] - full[rows].astype(np.float64)) @ spectrum.directions) ** 2
            self.signal += squares.sum(axis=0) / len(full)
            self.residual += errors.sum(axis=0) / len(full)
            ranges = self.bands.values()
            parts.append([[values[:, a:b].sum(axis=1) for a, b in ranges] for values in (squares, errors)])
        self._squares = np.concatenate(parts, axis=2)  # of each sample: (signal or residual, band, n)

    @property
    def sqnr(self) -> FloatArray:
        """The SQNR of each direction in dB, shape (dim,).

        It is 10 log10(e_s / e_q), at most 144.5 (the resolution of float32), and NaN for a direction without signal.
        """
        signal = np.where(self.signal > NOTHING * self.signal.sum(), self.signal, np.nan)
        ratio: FloatArray = signal / np.maximum(self.residual, signal * 10 ** (-HIGHEST_SQNR / 10))
        return 10 * np.log10(ratio)

    def residual_ratio(self, band: str) -> Estimate:
        """Return sum e_q / sum e_s over a band.

        It is 0 for equal models, and NaN if the band has no signal.
        """
        signal, residual = (values[list(self.bands).index(band)] for values in self._squares)
        if not signal.mean() > NOTHING * self.signal.sum():
            return Estimate(float("nan"), {})
        means = [Estimate(float(x.mean()), {self._group: x - x.mean()}) for x in (residual, signal)]
        return means[0] / means[1]

    @cached_property
    def cka(self) -> Estimate:
        """The linear CKA of the two (Kornblith et al. 2019).

        It is 1 if the features are equal but for rotation and scale, else less.
        """
        features = self._full, self._quantized
        means = self._spectrum.mean, self._quantized.mean(axis=0, dtype=np.float64)

        def pairs(first: int, second: int) -> Iterator[tuple[FloatArray, FloatArray]]:
            return zip(*(_centred(features[i], means[i]) for i in (first, second)), strict=True)

        value, influence = 1.0, np.zeros(len(self._full))
        for first, second, exponent in ((0, 1, 1.0), (0, 0, -0.5), (1, 1, -0.5)):
            cross = sum((x.T @ y for x, y in pairs(first, second)), np.zeros(())) / len(influence)
            square = float((cross**2).sum()) or float("nan")
            each = np.concatenate([((x @ cross) * y).sum(axis=1) for x, y in pairs(first, second)])
            value *= square**exponent
            influence += exponent * 2 * (each - square) / square
        return Estimate(round(value, ROUNDED), {self._group: value * influence})

    def principal_angle(self, quantized: Spectrum) -> float:
        """Return the largest principal angle between the low ranks, in degrees.

        Args:
            quantized: The spectrum of the quantized features.
        """
        first, end = self.bands[RANK_BANDS[0]]
        ours, theirs = (spectrum.directions[:, first:end] for spectrum in (self._spectrum, quantized))
        # The sine resolves small angles, the cosine does not.
        away = theirs - ours @ (ours.T @ theirs)
        sine = float(np.linalg.svd(away, compute_uv=False)[0])
        return round(float(np.degrees(np.arcsin(min(sine, 1.0)))), ROUNDED)


def predict_from_band(
    features: FeatureArray, spectrum: Spectrum, band: tuple[int, int], classifier: FeatureArray
) -> IntArray:
    """Predict classes from one band of directions.

    All other directions are at the mean of the features.

    Args:
        features: Features of images, shape (n, dim). Their length does not change which class is first.
        spectrum: The spectrum whose directions are used.
        band: The first rank of the band and the one after its last.
        classifier: Text features of the classes in unit rows, shape (classes, dim).

    Returns:
        The predicted classes, int64, shape (n,).

    Example:
        >>> import numpy as np
        >>> features = np.array([[3.0, 0.5], [-3.0, 0.5], [3.0, -0.5], [-3.0, -0.5]])
        >>> classifier = np.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> predict_from_band(features, Spectrum.fit(features), (0, 1), classifier).tolist()
        [0, 1, 0, 1]
    """
    mean = features.mean(axis=0, dtype=np.float64)
    directions = spectrum.directions[:, slice(*band)]
    to_classes = directions.T @ classifier.T.astype(np.float64)
    at_mean = mean @ classifier.T
    parts = [(part @ directions) @ to_classes + at_mean for part in _centred(features, mean)]
    return np.concatenate([part.argmax(axis=1) for part in parts])


def _rows(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK_ROWS):
        yield slice(start, start + CHUNK_ROWS)


def _centred(features: FeatureArray, mean: FloatArray) -> Iterator[FloatArray]:
    for rows in _rows(len(features)):
        yield features[rows] - mean
