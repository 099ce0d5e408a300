"""What is drawn of a case, cut down to what a drawing can show, as plain lists: it travels, and goes into results."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.measurement.spectral import SpectralComparison
from pytest_qreliab.metrics import registry, spectral
from pytest_qreliab.metrics.calibration import bin_sums
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.report.records import Bin, Curves, Points
from pytest_qreliab.statistics.arrays import FloatArray

DIGITS = 4
POINTS = 64  # of a curve, at most

Places = npt.NDArray[np.int64]


def build_curves(baseline: Measurement, quantized: Measurement) -> Curves:
    """Of two measurements of the same samples; empty where they do not hold what it takes."""
    models = baseline, quantized
    predictions = [m.predictions for m in models if m.predictions is not None]
    score = registry.PRIMARY_SCORE
    sets = [name for name in baseline.ood_scores.get(score, ()) if name in quantized.ood_scores.get(score, ())]
    corruptions: dict[str, dict[str, tuple[float, float]]] = {}
    for (kind, severity), (before, after) in cells(*models).items():
        corruptions.setdefault(kind, {})[str(severity)] = (_short(before), _short(after))
    values, sqnr = _by_rank(*models)
    return Curves(
        reliability=[_bins(of) for of in predictions] if len(predictions) == 2 else [],
        roc={name: [_roc(m.id_scores[score], m.ood_scores[score][name]) for m in models] for name in sets},
        corruptions=corruptions,
        spectra=_spectra(*models),
        singular_values=values,
        sqnr=sqnr,
    )


def cells(baseline: Measurement, quantized: Measurement) -> dict[tuple[str, int], tuple[float, float]]:
    """The accuracies of both models by kind and severity of the corruption."""
    found = {}
    for name in baseline.labelled:
        category, *cell = name.split(".")
        if category == "corruption" and name in quantized.labelled:
            kind, severity = cell
            before, after = (float(m.labelled[name].correct.mean()) for m in (baseline, quantized))
            found[kind, int(severity)] = (before, after)
    return found


def _bins(predictions: Predictions) -> list[Bin]:
    confidence, correct = predictions.confidence, predictions.correct
    count, confident, right = bin_sums(confidence, correct)
    return [
        Bin(
            confidence=_short(confident[index] / count[index]),
            accuracy=_short(right[index] / count[index]),
            share=_short(count[index] / len(confidence)),
        )
        for index in np.flatnonzero(count)
    ]


def _roc(id_scores: FloatArray, ood_scores: FloatArray) -> Points:
    """The share of ID that is flagged, and of OOD that is detected, at some of all thresholds: equal scores are one."""
    cuts = np.unique(np.concatenate([id_scores, ood_scores]))[::-1]
    rates = (1 - np.searchsorted(np.sort(of), cuts) / len(of) for of in (id_scores, ood_scores))
    flagged, detected = (np.concatenate([[0.0], rate]) for rate in rates)
    return _points(_along(flagged + detected), flagged, detected)


def _spectra(baseline: Measurement, quantized: Measurement) -> dict[str, list[Points]]:
    if baseline.blocks is None or quantized.blocks is None:
        return {}
    found = {}
    for index, maps in enumerate(zip(baseline.blocks.power, quantized.blocks.power, strict=True)):
        profiles = [spectral.radial_profile(of) for of in maps]
        found[f"block {index + 1}"] = [_points(_along(frequency), frequency, power) for frequency, power in profiles]
    return found


def _by_rank(baseline: Measurement, quantized: Measurement) -> tuple[list[Points], Points]:
    features = [m.features.get("") for m in (baseline, quantized)]
    if any(of is None for of in features):
        return [], []
    values = [np.sqrt(np.maximum(m.spectrum("").power, 0)) for m in (baseline, quantized)]
    curves = [_over_rank(of) for of in values]
    if len(values[0]) != len(values[1]):
        return curves, []
    return curves, _over_rank(SpectralComparison(baseline, quantized).pair("").sqnr)


def _along(distance: FloatArray) -> Places:
    """At most `POINTS` places, with the first and the last, as evenly spaced in a rising distance as they come."""
    if len(distance) <= POINTS:
        return np.arange(len(distance))
    places = np.searchsorted(distance, np.linspace(distance[0], distance[-1], POINTS))
    places[-1] = len(distance) - 1  # with the last, not before it, where many lie together
    return np.unique(places).astype(np.int64)


def _over_rank(values: FloatArray) -> Points:
    """Ranks from 1, of which the higher ones lie closer together."""
    ranks = np.unique(np.geomspace(1, len(values), min(len(values), POINTS)).round())
    return _points(ranks.astype(np.int64) - 1, np.arange(1.0, len(values) + 1), values)


def _points(places: Places, x: FloatArray, y: FloatArray) -> Points:
    return [(_short(x[at]), _short(y[at])) for at in places if np.isfinite(y[at])]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
