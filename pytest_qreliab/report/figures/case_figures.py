"""The figures of one case, drawn from its two measurements into files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pytest_qreliab.config.cases import Case
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.measurement.spectral import SpectralComparison
from pytest_qreliab.metrics import spectral
from pytest_qreliab.metrics.definitions import RANK_BANDS
from pytest_qreliab.metrics.names import PRIMARY_SCORE
from pytest_qreliab.metrics.rank import NOTHING, Spectrum
from pytest_qreliab.quantizers.inspection.weight_spectra import WeightSpectrum
from pytest_qreliab.report import files
from pytest_qreliab.report.figures import curves, plots
from pytest_qreliab.statistics.arrays import FloatArray

FULL = "full precision"
PARTS = {"": "image features", "penultimate": "penultimate features", "text": "text features"}


def draw(
    folder: Path, case: Case, baseline: Measurement, quantized: Measurement, weights: Sequence[WeightSpectrum]
) -> None:
    """Write a PNG of every figure that the measurements and weights allow.

    Args:
        folder: Where the folder of the case goes, which has its name.
        case: The case.
        baseline: The measurement in full precision.
        quantized: The measurement of the quantized model.
        weights: The spectra of the weights; empty if they are not looked at.

    Raises:
        InputError: The files cannot be written.
    """
    models = {FULL: baseline, case.quantization: quantized}
    case_folder = folder / files.safe_name(case.id)
    try:
        case_folder.mkdir(parents=True, exist_ok=True)
        for name, figure in chain(_figures(models), _weights(weights)):
            written = case_folder / f"{name}.{os.getpid()}.png"  # another worker may draw the same case
            plots.save(figure, written)
            written.replace(case_folder / f"{name}.png")
    except OSError as error:
        raise InputError(f"--qreliab-figures: {case_folder} cannot be written: {error.strerror}") from None


def _figures(models: dict[str, Measurement]) -> Iterator[tuple[str, Figure]]:
    baseline, quantized = models.values()
    predictions = {name: m.predictions for name, m in models.items() if m.predictions is not None}
    if len(predictions) == 2:
        confidence = {name: (model.confidence, model.correct) for name, model in predictions.items()}
        yield "reliability", plots.reliability_diagram(confidence)
        yield "risk-coverage", plots.risk_coverage(confidence)
    score = PRIMARY_SCORE
    scores = {
        name: {ood: (m.id_scores[score], ood_scores) for ood, ood_scores in m.ood_scores[score].items()}
        for name, m in models.items()
        if score in m.ood_scores
    }
    if any(scores.values()):
        yield "roc", plots.roc(scores)
    if cells := curves.corruption_accuracies(baseline, quantized):
        yield "corruptions", plots.corruption_grid(cells)
    yield from _by_rank(models)
    yield from _blocks(models)


def _by_rank(models: dict[str, Measurement]) -> Iterator[tuple[str, Figure]]:
    spectra = SpectralComparison(*models.values())
    shared = [part for part in PARTS if all(part in m.features for m in models.values())]
    shared = [part for part in shared if len({m.features[part].shape[1] for m in models.values()}) == 1]
    if not shared:
        return
    pairs = {part: spectra.pair(part) for part in shared}
    bands = [(band.replace("_", " "), *ends) for band, ends in pairs[shared[0]].bands.items() if band]
    yield "sqnr", plots.sqnr_by_rank({PARTS[part]: pair.sqnr for part, pair in pairs.items()}, bands)
    values = {name: _singular_values(m.spectrum(shared[0])) for name, m in models.items()}
    yield "singular-values", plots.singular_values(values)


def _weights(weights: Sequence[WeightSpectrum]) -> Iterator[tuple[str, Figure]]:
    """Yield relative errors and shares of the energy by band."""
    if not weights:
        return
    sums = [weight.sums() for weight in weights]
    bands = {}
    for band in RANK_BANDS:
        errors, squares = np.array([by_band[band] for by_band in sums]).T
        relative = np.sqrt(np.divide(errors, squares, out=np.full_like(errors, np.nan), where=squares > 0))
        bands[band.replace("_", " ")] = relative, squares / np.array([by_band[""][1] for by_band in sums])
    yield "weights", plots.weight_bands(bands)


def _singular_values(spectrum: Spectrum) -> FloatArray:
    values: FloatArray = np.sqrt(spectrum.power[spectrum.power > NOTHING * spectrum.power[0]])
    return values


def _blocks(models: dict[str, Measurement]) -> Iterator[tuple[str, Figure]]:
    powers = [m.blocks.power for m in models.values() if m.blocks is not None]
    if len(powers) < 2:
        return
    names = [f"block {index + 1}" for index in range(len(powers[0]))]
    profiles = {
        block: {name: spectral.radial_profile(power) for name, power in zip(models, maps, strict=True)}
        for block, *maps in zip(names, *powers, strict=True)
    }
    yield "spectra", plots.power_spectra(profiles)
    errors = {block: spectral.error_map(*maps) for block, *maps in zip(names, *powers, strict=True)}
    if any(np.isfinite(error).any() for error in errors.values()):
        yield "error-maps", plots.error_maps(errors)
