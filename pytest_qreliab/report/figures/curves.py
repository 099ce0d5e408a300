"""The curves of a case as plain lists for results files.

They have no more points than a drawing can show.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.measurement.spectral import SpectralComparison
from pytest_qreliab.metrics import spectral
from pytest_qreliab.metrics.binning import bin_sums
from pytest_qreliab.metrics.classification import Predictions
from pytest_qreliab.metrics.names import PRIMARY_SCORE, SetName
from pytest_qreliab.report.records import Bin, Curves, Points
from pytest_qreliab.statistics.arrays import FloatArray

DIGITS = 4
POINTS = 64  # of a curve, at most

Places = npt.NDArray[np.int64]


def build_curves(baseline: Measurement, quantized: Measurement) -> Curves:
    """Return the curves of two measurements of the same samples.

    A curve is empty if a measurement lacks what it shows.
    """
    models = baseline, quantized
    predictions = [m.predictions for m in models if m.predictions is not None]
    score = PRIMARY_SCORE
    sets = [name for name in baseline.ood_scores.get(score, ()) if name in quantized.ood_scores.get(score, ())]
    corruptions: dict[str, dict[str, tuple[float, float]]] = {}
    for (kind, severity), (before, after) in corruption_accuracies(baseline, quantized).items():
        corruptions.setdefault(kind, {})[str(severity)] = (_short(before), _short(after))
    values, sqnr = _by_rank(*models)
    return Curves(
        reliability=[_bins(model) for model in predictions] if len(predictions) == 2 else [],
        roc={name: [_roc(m.id_scores[score], m.ood_scores[score][name]) for m in models] for name in sets},
        corruptions=corruptions,
        spectra=_spectra(*models),
        singular_values=values,
        sqnr=sqnr,
    )


def corruption_accuracies(baseline: Measurement, quantized: Measurement) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the accuracies of both models by kind and severity."""
    accuracies = {}
    for name in baseline.labelled:
        set_name = SetName.parse(name)
        if set_name.category == "corruption" and name in quantized.labelled:
            before, after = (float(m.labelled[name].correct.mean()) for m in (baseline, quantized))
            accuracies[set_name.group, int(set_name.name)] = (before, after)
    return accuracies


def _bins(predictions: Predictions) -> list[Bin]:
    confidence, correct = predictions.confidence, predictions.correct
    sums = bin_sums(confidence, correct)
    return [
        Bin(
            confidence=_short(sums.confidence[index] / sums.count[index]),
            accuracy=_short(sums.correct[index] / sums.count[index]),
            share=_short(sums.count[index] / len(confidence)),
        )
        for index in np.flatnonzero(sums.count)
    ]


def _roc(id_scores: FloatArray, ood_scores: FloatArray) -> Points:
    """Return the false and true positive rates at up to `POINTS` thresholds."""
    thresholds = np.unique(np.concatenate([id_scores, ood_scores]))[::-1]
    rates = (1 - np.searchsorted(np.sort(scores), thresholds) / len(scores) for scores in (id_scores, ood_scores))
    flagged, detected = (np.concatenate([[0.0], rate]) for rate in rates)
    return _points(_along(flagged + detected), flagged, detected)


def _spectra(baseline: Measurement, quantized: Measurement) -> dict[str, list[Points]]:
    if baseline.blocks is None or quantized.blocks is None:
        return {}
    spectra = {}
    for index, maps in enumerate(zip(baseline.blocks.power, quantized.blocks.power, strict=True)):
        profiles = [spectral.radial_profile(power) for power in maps]
        spectra[f"block {index + 1}"] = [_points(_along(frequency), frequency, power) for frequency, power in profiles]
    return spectra


def _by_rank(baseline: Measurement, quantized: Measurement) -> tuple[list[Points], Points]:
    """Return the singular values of both models, and the SQNR.

    The SQNR is empty if their features are not equally wide.
    """
    if any("" not in m.features for m in (baseline, quantized)):
        return [], []
    values = [np.sqrt(np.maximum(m.spectrum("").power, 0)) for m in (baseline, quantized)]
    curves = [_over_rank(singular_values) for singular_values in values]
    if len(values[0]) != len(values[1]):
        return curves, []
    return curves, _over_rank(SpectralComparison(baseline, quantized).pair("").sqnr)


def _along(distance: FloatArray) -> Places:
    """Return at most `POINTS` places, evenly spaced in a rising distance.

    The first and the last place are among them.
    """
    if len(distance) <= POINTS:
        return np.arange(len(distance))
    places = np.searchsorted(distance, np.linspace(distance[0], distance[-1], POINTS))
    places[-1] = len(distance) - 1  # with the last, not before it, where many lie together
    return np.unique(places).astype(np.int64)


def _over_rank(values: FloatArray) -> Points:
    """Return values over ranks from 1 on, evenly spaced in their logarithm."""
    ranks = np.unique(np.geomspace(1, len(values), min(len(values), POINTS)).round())
    return _points(ranks.astype(np.int64) - 1, np.arange(1.0, len(values) + 1), values)


def _points(places: Places, x: FloatArray, y: FloatArray) -> Points:
    return [(_short(x[at]), _short(y[at])) for at in places if np.isfinite(y[at])]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
