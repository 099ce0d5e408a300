"""Spectral metrics of two measurements on the same samples: the values of both, and how sure their change is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pytest_qreliab.embedding.records import Blocks
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.measurement.measurement import ID, Measurement
from pytest_qreliab.metrics import rank, registry, spectral
from pytest_qreliab.metrics.rank import HIGHEST_SQNR, RANKS, FeaturePair
from pytest_qreliab.statistics import half_sampling, influence, proportions
from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.influence import Estimate
from pytest_qreliab.statistics.interval import Bounds, Interval, normal_interval


class SpectralComparison:
    """The metrics of the aspect `spectrum`, each computed when it is asked for."""

    def __init__(self, baseline: Measurement, quantized: Measurement) -> None:
        self._baseline, self._quantized = baseline, quantized
        self._pairs: dict[str, FeaturePair] = {}
        self._correct: dict[str, list[FloatArray]] = {}

    def values(self, name: str) -> tuple[float, float]:
        """Of the baseline and of the quantized model. Raises InputError, with the reason, where there is none."""
        statistic, part = _parse_name(name)
        samples = self._samples(statistic, part)
        if samples is not None:
            return float(samples[0].mean()), float(samples[1].mean())
        if statistic == "map_error":
            return 0.0, float(np.nanmean(self._error_map(part)))
        if statistic in RANKS:
            self._same_features(part)
            before, after = (float(getattr(m.spectrum(part), statistic)) for m in self._models)
            return before, after
        pair = self.pair(part)
        if statistic == "cka":
            return 1.0, pair.cka.value
        if statistic == "principal_angle":
            return 0.0, pair.principal_angle(self._quantized.spectrum(part))
        kind, _, band = statistic.partition("_")
        ratio = pair.residual_ratio(band).value
        if math.isnan(ratio):
            raise InputError(f"the full-precision features do not vary along {band.replace('_', ' ')}s")
        return (0.0, ratio) if kind == "residual" else (HIGHEST_SQNR, _decibel(ratio))

    def bounds(self, name: str) -> tuple[Bounds | None, str]:
        """The bounds of the change, quantized - baseline, and by what method."""
        statistic, part = _parse_name(name)
        method = "paired, influence values"
        samples = self._samples(statistic, part)
        if samples is not None:
            change = samples[1] - samples[0]
            if statistic.startswith("accuracy"):
                return proportions.paired_score(change), "paired score"
            return influence.paired_mean(change, ID).interval, "paired t"
        if statistic == "map_error":
            return self._error_map_bounds(), "paired, resampled halves"
        if statistic in RANKS:
            first, second = (m.spectrum(part).estimate(statistic, m.features[part], ID) for m in self._models)
            return (second - first).padded().interval, method
        if statistic == "cka":
            return (self.pair(part).cka - Estimate(1.0, {})).padded().interval, method
        kind, _, band = statistic.partition("_")
        ratio = self.pair(part).residual_ratio(band).padded(both_sides=False).interval
        if kind == "residual":
            return ratio, method

        def in_decibel(alpha: float) -> Interval:
            low, high = ratio(alpha)
            return Interval(*(_decibel(end) - HIGHEST_SQNR for end in (high, low)))

        return in_decibel, method

    def pair(self, part: str) -> FeaturePair:
        """The features of that part, by full-precision direction. Raises InputError where there are none."""
        if part not in self._pairs:
            self._same_features(part)
            spectrum = self._baseline.spectrum(part)
            full, quantized = (m.features[part] for m in self._models)
            self._pairs[part] = FeaturePair(spectrum, full, quantized, ID)
        return self._pairs[part]

    @property
    def _models(self) -> tuple[Measurement, Measurement]:
        return self._baseline, self._quantized

    def _same_features(self, part: str) -> None:
        for who, measurement in zip(("baseline", "quantized"), self._models, strict=True):
            if part not in measurement.features:
                what = {"": "there are no image features", "text": "there are no text features"}
                raise InputError(f"{who}: {what.get(part, 'the image tower shows no penultimate features')}")
        widths = [m.features[part].shape[1] for m in self._models]
        if widths[0] != widths[1]:
            raise InputError(f"features are {widths[0]} wide in full precision and {widths[1]} here")

    def _samples(self, statistic: str, part: str) -> list[FloatArray] | None:
        """What a metric is the mean of, in both models; None for one that is no mean over samples."""
        if statistic == "high_band_energy":
            return self._shares(part)
        if statistic.startswith("sensitivity"):
            return self._sensitivities(statistic)
        return self._hits(statistic) if statistic.startswith("accuracy") else None

    def _hits(self, statistic: str) -> list[FloatArray]:
        """Which samples are right, 0 or 1, in both models, by one band of the baseline's directions alone."""
        if statistic not in self._correct:
            band = self.pair("").bands[statistic.removeprefix("accuracy_")]
            hits = []
            for m in self._models:
                if m.predictions is None or "text" not in m.features:
                    raise InputError("there are no text features to classify with")
                found = rank.predicted(m.features[""], self._baseline.spectrum(""), band, m.features["text"])
                hits.append((found == m.predictions.labels).astype(np.float64))
            self._correct[statistic] = hits
        return self._correct[statistic]

    def _shares(self, part: str) -> list[FloatArray]:
        """The high-band energy shares of the samples in both models, after the last block or block number `part`."""
        shares = []
        for m in self._models:
            if not part:
                if m.high_band is None:
                    raise InputError("the image tower shows no patch map")
                shares.append(m.high_band)
                continue
            found = self._of_block(m, part, lambda blocks, index: blocks.shares[:, index])
            if not np.isfinite(found).all():
                raise InputError(f"the map after block {part} is not finite, or constant, in some images")
            shares.append(found)
        return shares

    def _sensitivities(self, statistic: str) -> list[FloatArray]:
        """Of the images that gratings were added to, in both models."""
        index = list(registry.GRATINGS).index(statistic.removeprefix("sensitivity_"))
        found = [m.sensitivity[:, index] for m in self._models if m.sensitivity is not None]
        if len(found) < 2 or not np.isfinite(found).all():
            raise InputError("the features of images with gratings are not finite, or were not looked at")
        return found

    def _error_map(self, part: str) -> FloatArray:
        """The relative spectral error map, (rows, columns), NaN at DC."""
        powers = [self._of_block(m, part, lambda blocks, index: blocks.power[index]) for m in self._models]
        found = spectral.error_map(*powers)
        if not np.isfinite(found).any():
            raise InputError("the patch maps are constant, or hold NaN or infinity")
        return found

    def _of_block(self, m: Measurement, part: str, of: Callable[[Blocks, int], FloatArray]) -> FloatArray:
        if m.blocks is None:
            raise InputError("the image tower shows no patch map")
        if part and int(part) > len(m.blocks.power):
            raise InputError(f"the image tower shows {len(m.blocks.power)} blocks")
        return of(m.blocks, int(part) - 1 if part else -1)

    def _error_map_bounds(self) -> Bounds:
        maps = [m.blocks.last.astype(np.float64) for m in self._models if m.blocks is not None]
        bundle = half_sampling.assign_blocks(len(maps[0]))
        none, some = (spectral.MapError(maps[0], of, bundle) for of in maps)
        errors = half_sampling.half_sample_errors([(none, some)], int(bundle.max()) + 1)
        value = self.values("spectral.map_error")[1]
        return lambda alpha: normal_interval(value, errors["spectral.map_error"], alpha)


def _parse_name(name: str) -> tuple[str, str]:
    """The statistic, and the block or the features that it is on: "" for the last, and for those of the image."""
    statistic, _, part = name.removeprefix("spectral.").partition(".")
    return statistic, part


def _decibel(ratio: float) -> float:
    """Of noise to signal, as signal to noise, up to what float32 resolves."""
    return HIGHEST_SQNR if ratio <= 10 ** (-HIGHEST_SQNR / 10) else -10 * math.log10(ratio)


def is_spectral(name: str) -> bool:
    """Whether it is a metric that two measurements are asked for together."""
    metric = registry.lookup(name)
    return metric.aspect == "spectrum" and "weights" not in metric.needs
