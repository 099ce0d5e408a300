"""Features and weights by rank: the directions in which they vary, most first, and what quantization does to each.

The directions are the right singular vectors of the centred full-precision features (n, dim), as in the study. All
sums over samples are taken some rows at a time, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pytest_qreliab.metrics.registry import RANK_BANDS
from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.influence import Estimate

Features = npt.NDArray[np.floating]

CHUNK_ROWS = 4096
# Residuals below the resolution of float32 cannot be told from none: the SQNR of two equal models, in dB.
HIGHEST_SQNR = 20 * np.log10(2.0**24)
# What is left of singular values that are zero, relative to the largest, squared.
NOTHING = 1e-12
ROUNDED = 9  # decimals, so that equal features differ in nothing
WIDE = 128  # from here on the study's bands
RANKS = ("effective_rank", "stable_rank", "participation_ratio")


def bands(width: int) -> dict[str, tuple[int, int]]:
    """The low, middle and high ranks of features of that width, as (first, end), counted from 0.

    The study's are 0-8, 8-64 and 64 on. Features narrower than 128 have bands of the same share as in its towers of
    512: the first 1/64, up to 1/8, and the rest, of at least one rank each where there are three.
    """
    first, second = (8, 64) if width >= WIDE else (max(1, round(width / 64)), max(2, round(width / 8)))
    return dict(zip(RANK_BANDS, ((0, first), (first, second), (second, width)), strict=True))


def effective_rank(power: FloatArray) -> float:
    """exp(-sum p log p), p = power / sum power, of squared singular values, descending: from 1 to their number; NaN
    where all are 0. The entropy is Roy & Vetterli's (2007), over s^2 in place of s, as in the study."""
    if not power[0] > 0:
        return float("nan")
    p = _shares(power)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def _shares(power: FloatArray) -> FloatArray:
    """The share of each direction that has any, in the whole."""
    shares: FloatArray = np.where(power > NOTHING * power[0], power, 0) / power.sum()
    return shares


def residual_ratio(full: Features, other: Features) -> float:
    """Mean square of what is added to features (n, dim), over that of the features, centred: `Pair`'s, of all ranks."""
    signal = np.square(full - full.mean(axis=0, dtype=np.float64)).sum()
    return float(np.square(other.astype(np.float64) - full).sum() / signal)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The directions of a feature set: `mean` (dim,), `power` (dim,) the mean squared projection on each, descending,
    `directions` (dim, dim) in columns."""

    mean: FloatArray
    power: FloatArray
    directions: FloatArray

    @classmethod
    def fit(cls, features: Features) -> Spectrum:
        """Of features (n, dim)."""
        mean = features.mean(axis=0, dtype=np.float64)
        gram = sum((part.T @ part for part in _centred(features, mean)), np.zeros((len(mean), len(mean))))
        power, directions = np.linalg.eigh(gram / len(features))
        return cls(mean, power[::-1].clip(min=0), directions[:, ::-1])

    @property
    def effective_rank(self) -> float:
        """From 1 to min(n - 1, dim); NaN where nothing varies."""
        return effective_rank(self.power)

    @property
    def stable_rank(self) -> float:
        """sum s^2 / max s^2: from 1; NaN where nothing varies."""
        return float(self.power.sum() / self.power[0]) if self.power[0] > 0 else float("nan")

    @property
    def participation_ratio(self) -> float:
        """(sum s^2)^2 / sum s^4: from 1; NaN where nothing varies."""
        return float(self.power.sum() ** 2 / (self.power**2).sum()) if self.power[0] > 0 else float("nan")

    def estimate(self, statistic: str, features: Features, group: str) -> Estimate:
        """`effective_rank`, `stable_rank` or `participation_ratio` of the features that this is of, with influences.

        A sample moves the power of a direction by its own there less the mean: first-order perturbation.
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
    """Full-precision and quantized features (n, dim) of the same samples, of the image set `group`.

    `signal` and `residual`, (dim,), are the mean squares, by full-precision direction, of the centred full-precision
    features and of the differences: the study's e_s and e_q.
    """

    def __init__(self, spectrum: Spectrum, full: Features, quantized: Features, group: str) -> None:
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
        self._of_samples = np.concatenate(parts, axis=2)  # (signal or residual, band, n)

    @property
    def sqnr(self) -> FloatArray:
        """10 log10(e_s / e_q) of each direction, dB, (dim,): at most 144.5, the resolution of float32.

        NaN where there is no signal.
        """
        signal = np.where(self.signal > NOTHING * self.signal.sum(), self.signal, np.nan)
        found: FloatArray = 10 * np.log10(signal / np.maximum(self.residual, signal * 10 ** (-HIGHEST_SQNR / 10)))
        return found

    def residual_ratio(self, band: str) -> Estimate:
        """sum e_q / sum e_s over a band, or over all directions (""): 0 of equal models; NaN in a band of no signal."""
        signal, residual = (values[list(self.bands).index(band)] for values in self._of_samples)
        if not signal.mean() > NOTHING * self.signal.sum():
            return Estimate(float("nan"), {})
        means = [Estimate(float(x.mean()), {self._group: x - x.mean()}) for x in (residual, signal)]
        return means[0] / means[1]

    @cached_property
    def cka(self) -> Estimate:
        """Linear CKA (Kornblith et al. 2019) of the two: 1 for equal ones, rotated or scaled ones too; else less."""
        of = self._full, self._quantized
        means = self._spectrum.mean, self._quantized.mean(axis=0, dtype=np.float64)

        def pairs(first: int, second: int) -> Iterator[tuple[FloatArray, FloatArray]]:
            return zip(_centred(of[first], means[first]), _centred(of[second], means[second]), strict=True)

        value, influence = 1.0, np.zeros(len(self._full))
        for first, second, exponent in ((0, 1, 1.0), (0, 0, -0.5), (1, 1, -0.5)):
            cross = sum((x.T @ y for x, y in pairs(first, second)), np.zeros(())) / len(influence)
            square = float((cross**2).sum()) or float("nan")
            each = np.concatenate([((x @ cross) * y).sum(axis=1) for x, y in pairs(first, second)])
            value *= square**exponent
            influence += exponent * 2 * (each - square) / square
        return Estimate(round(value, ROUNDED), {self._group: value * influence})

    def principal_angle(self, quantized: Spectrum) -> float:
        """The largest principal angle, in degrees, between the low ranks of the two: 0 to 90."""
        first, end = self.bands[RANK_BANDS[0]]
        ours, theirs = (of.directions[:, first:end] for of in (self._spectrum, quantized))
        # By its sine, which small angles show in full.
        away = theirs - ours @ (ours.T @ theirs)
        sine = float(np.linalg.svd(away, compute_uv=False)[0])
        return round(float(np.degrees(np.arcsin(min(sine, 1.0)))), ROUNDED)


def predicted(
    features: Features, spectrum: Spectrum, band: tuple[int, int], classifier: Features
) -> npt.NDArray[np.int64]:
    """The classes (n,) predicted from one band of directions alone, all others at the features' own mean.

    `classifier` is (classes, dim), unit rows. The length of an image's features does not change which class is first.
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


def _centred(features: Features, mean: FloatArray) -> Iterator[FloatArray]:
    for rows in _rows(len(features)):
        yield features[rows] - mean
