"""Spectral metrics of two measurements on the same samples: the values of both, and how sure their change is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from pytest_qreliab.embedding.records import Blocks
from pytest_qreliab.errors import InputError, NotShownError
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.metrics import rank, spectral
from pytest_qreliab.metrics.definitions import GRATINGS, ID, RANK_BANDS, PairedBounds
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.metrics.prediction_kinds import paired_score
from pytest_qreliab.metrics.rank import HIGHEST_SQNR, RANKS, FeaturePair
from pytest_qreliab.statistics import half_sampling, influence
from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.influence import Estimate
from pytest_qreliab.statistics.interval import Bounds, Interval, normal_interval

INFLUENCE = "paired, influence values"
NO_MAP = (
    "the image tower shows no patch map; return `(features, map)` from encode_image, or give the ONNX graph a second "
    "output"
)


class SpectralValues(NamedTuple):
    """A spectral metric of both models."""

    baseline: float
    quantized: float


class SpectralStatistic(Protocol):
    """A spectral statistic of two measurements: of some features, or of the patch map after some block."""

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return the values of both models. Raise InputError with the reason if there is none."""
        ...

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return the bounds on the change, if the metric has an interval."""
        ...


class SpectralComparison:
    """The spectral metrics of two measurements, each computed when it is asked for."""

    def __init__(self, baseline: Measurement, quantized: Measurement) -> None:
        self.models = baseline, quantized
        self._pairs: dict[str, FeaturePair] = {}
        self._hits: dict[str, list[FloatArray]] = {}

    def values(self, name: str) -> SpectralValues:
        """Return the values of both models. Raise InputError, with the reason, if there is none."""
        parsed = MetricName.parse(name)
        return STATISTICS[parsed.statistic].values(self, parsed.part)

    def bounds(self, name: str) -> PairedBounds:
        """Return the bounds on the change, quantized - baseline, and their method."""
        parsed = MetricName.parse(name)
        return STATISTICS[parsed.statistic].bounds(self, parsed.part)

    def pair(self, part: str) -> FeaturePair:
        """Return the features of that part by full-precision direction. Raise InputError if there are none."""
        if part not in self._pairs:
            self.require_features(part)
            full, quantized = (m.features[part] for m in self.models)
            self._pairs[part] = FeaturePair(self.models[0].spectrum(part), full, quantized, ID)
        return self._pairs[part]

    def require_features(self, part: str) -> None:
        """Raise InputError if a model lacks features of that part, or they are of different widths."""
        for who, measurement in zip(("baseline", "quantized"), self.models, strict=True):
            if part not in measurement.features:
                what = {"": "there are no image features", "text": "there are no text features"}
                raise NotShownError(f"{who}: {what.get(part, 'the image tower shows no penultimate features')}")
        widths = [m.features[part].shape[1] for m in self.models]
        if widths[0] != widths[1]:
            raise InputError(f"features are {widths[0]} wide in full precision and {widths[1]} here")

    def hits(self, band: str) -> list[FloatArray]:
        """Return which samples are right, 0 or 1, in both models, by one band of the baseline's directions alone."""
        if band not in self._hits:
            ranks = self.pair("").bands[band]
            hits = []
            for m in self.models:
                if m.predictions is None or "text" not in m.features:
                    raise InputError("there are no text features to classify with")
                predicted = rank.predict_from_band(
                    m.features[""], self.models[0].spectrum(""), ranks, m.features["text"]
                )
                hits.append((predicted == m.predictions.labels).astype(np.float64))
            self._hits[band] = hits
        return self._hits[band]


@dataclass(frozen=True)
class SampleAverage:
    """The mean over samples of one number each."""

    samples: Callable[[SpectralComparison, str], list[FloatArray]]  # of both models, (n,) each

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return the means."""
        baseline, quantized = self.samples(spectra, part)
        return SpectralValues(float(baseline.mean()), float(quantized.mean()))

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return the bounds of paired differences."""
        baseline, quantized = self.samples(spectra, part)
        return PairedBounds(influence.paired_mean(quantized - baseline, ID).interval, "paired t")


class BandAccuracy(SampleAverage):
    """The share of samples that one band of ranks classifies rightly."""

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return Tango's score interval."""
        baseline, quantized = self.samples(spectra, part)
        return paired_score(quantized - baseline)


class ErrorMap:
    """The mean over frequencies of the relative change of the patch map's power."""

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return 0 and the mean of the error map."""
        powers = [_of_block(m, part, lambda blocks, index: blocks.power[index]) for m in spectra.models]
        errors = spectral.error_map(*powers)
        if not np.isfinite(errors).any():
            raise InputError("the patch maps are constant, or hold NaN or infinity")
        return SpectralValues(0.0, float(np.nanmean(errors)))

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return the bounds by random halves of the samples."""
        maps = [m.blocks.last.astype(np.float64) for m in spectra.models if m.blocks is not None]
        block_ids = half_sampling.assign_blocks(len(maps[0]))
        none, some = (spectral.MapError(maps[0], of, block_ids) for of in maps)
        errors = half_sampling.half_sample_errors([(none, some)], int(block_ids.max()) + 1)
        value, error = self.values(spectra, part).quantized, errors["spectral.map_error"]
        return PairedBounds(lambda alpha: normal_interval(value, error, alpha), "paired, resampled halves")


@dataclass(frozen=True)
class RankStatistic:
    """A statistic of the spectrum of the features of each model."""

    statistic: str

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return the values of both models."""
        spectra.require_features(part)
        return SpectralValues(*(float(getattr(m.spectrum(part), self.statistic)) for m in spectra.models))

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return the bounds by influence values."""
        before, after = (m.spectrum(part).estimate(self.statistic, m.features[part], ID) for m in spectra.models)
        return PairedBounds((after - before).pad().interval, INFLUENCE)


class Similarity:
    """Linear CKA."""

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return 1 and the similarity of the two models."""
        return SpectralValues(1.0, spectra.pair(part).cka.value)

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return the bounds by influence values."""
        return PairedBounds((spectra.pair(part).cka - Estimate(1.0, {})).pad().interval, INFLUENCE)


class PrincipalAngle:
    """The largest angle of the first ranks to those of full precision."""

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return 0 and the angle, in degrees."""
        return SpectralValues(0.0, spectra.pair(part).principal_angle(spectra.models[1].spectrum(part)))

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Raise ValueError: an angle has no interval."""
        raise ValueError("no interval is computed of an angle")


@dataclass(frozen=True)
class Residual:
    """The part that quantization adds to the features along a band of ranks, over the features themselves."""

    band: str  # "": all ranks

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return 0 and the ratio of the mean squares."""
        ratio = spectra.pair(part).residual_ratio(self.band).value
        if math.isnan(ratio):
            raise InputError(f"the full-precision features do not vary along {self.band.replace('_', ' ')}s")
        return SpectralValues(0.0, ratio)

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return the bounds by influence values."""
        ratio = spectra.pair(part).residual_ratio(self.band)
        return PairedBounds(ratio.pad(both_sides=False).interval, INFLUENCE)


class SignalToNoise(Residual):
    """The features over what quantization adds to them, in dB, up to the resolution of float32."""

    def values(self, spectra: SpectralComparison, part: str) -> SpectralValues:
        """Return the resolution, and the ratio of the two models."""
        return SpectralValues(HIGHEST_SQNR, _decibel(super().values(spectra, part).quantized))

    def bounds(self, spectra: SpectralComparison, part: str) -> PairedBounds:
        """Return the bounds of the residual, in dB."""
        residual, method = super().bounds(spectra, part)
        return PairedBounds(_in_decibel(residual), method)


def _in_decibel(residual: Bounds) -> Bounds:
    def bounds(alpha: float) -> Interval:
        low, high = residual(alpha)
        return Interval(*(_decibel(end) - HIGHEST_SQNR for end in (high, low)))

    return bounds


def _decibel(ratio: float) -> float:
    """Return a ratio of noise to signal as signal to noise, in dB, up to the resolution of float32."""
    return HIGHEST_SQNR if ratio <= 10 ** (-HIGHEST_SQNR / 10) else -10 * math.log10(ratio)


def _shares(spectra: SpectralComparison, part: str) -> list[FloatArray]:
    """Return the high-band energy shares of both models, (n,), after the last block or block number `part`."""
    shares = []
    for m in spectra.models:
        if not part:
            if m.high_band is None:
                raise NotShownError(NO_MAP)
            shares.append(m.high_band)
            continue
        of_block = _of_block(m, part, lambda blocks, index: blocks.shares[:, index])
        if not np.isfinite(of_block).all():
            raise InputError(f"the map after block {part} is not finite, or constant, in some images")
        shares.append(of_block)
    return shares


def _of_block(m: Measurement, part: str, get: Callable[[Blocks, int], FloatArray]) -> FloatArray:
    """Return an array of the last block, or of block number `part`. Raise NotShownError if there is none."""
    if m.blocks is None:
        raise NotShownError(NO_MAP)
    if part and int(part) > len(m.blocks.power):
        raise NotShownError(f"the image tower shows no block {part}; valid: 1 to {len(m.blocks.power)}")
    return get(m.blocks, int(part) - 1 if part else -1)


def _hits(band: str) -> Callable[[SpectralComparison, str], list[FloatArray]]:
    return lambda spectra, part: spectra.hits(band)


def _sensitivities(index: int) -> Callable[[SpectralComparison, str], list[FloatArray]]:
    """Return the function that gives the sensitivities to one grating, (images,), of both models."""

    def samples(spectra: SpectralComparison, part: str) -> list[FloatArray]:
        found = [m.sensitivity[:, index] for m in spectra.models if m.sensitivity is not None]
        if len(found) < 2:
            raise NotShownError("images with gratings were not looked at")
        if not np.isfinite(found).all():
            raise InputError("the features of images with gratings are not finite")
        return found

    return samples


# By the statistic of a metric's name; those of weights are not of two measurements.
STATISTICS: dict[str, SpectralStatistic] = {
    "high_band_energy": SampleAverage(_shares),
    "map_error": ErrorMap(),
    **{statistic: RankStatistic(statistic) for statistic in RANKS},
    **{f"sqnr{band and '_'}{band}": SignalToNoise(band) for band in ("", *RANK_BANDS)},
    **{f"residual{band and '_'}{band}": Residual(band) for band in ("", *RANK_BANDS)},
    **{f"accuracy_{band}": BandAccuracy(_hits(band)) for band in RANK_BANDS},
    "cka": Similarity(),
    "principal_angle": PrincipalAngle(),
    **{f"sensitivity_{which}": SampleAverage(_sensitivities(index)) for index, which in enumerate(GRATINGS)},
}
