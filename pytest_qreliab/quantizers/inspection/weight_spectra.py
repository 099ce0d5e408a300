"""The singular spectra of weights, and their errors rank by rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pytest_qreliab.errors import InputError, NotShownError
from pytest_qreliab.metrics.rank import bands, effective_rank
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers
from pytest_qreliab.statistics.arrays import FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightSpectrum:
    """The spectrum of one weight, as a matrix of rank r."""

    name: str
    singular_values: FloatArray  # (r,), descending, in full precision
    quantized: FloatArray  # (r,), the singular values of the quantized weight, descending
    error: FloatArray  # (r,), the squared error along each right singular vector of full precision

    def sums(self) -> dict[str, tuple[float, float]]:
        """Return the sums of the squared error and of the energy.

        The energy is the squared singular values. Keys are the bands, and "" for all.
        """
        squares = self.singular_values**2
        ranges = {"": (0, len(squares)), **bands(len(squares))}
        return {name: (float(self.error[a:b].sum()), float(squares[a:b].sum())) for name, (a, b) in ranges.items()}


def spectra(full: Clip, quantized: Clip, scope: str) -> list[WeightSpectrum]:
    """Return the spectrum of every weight.

    Args:
        full: The full-precision model.
        quantized: A quantized copy of it. Its weights are taken as they act on an untransformed input.
        scope: The towers to look at: "vision", "text" or "both".

    Raises:
        NotShownError: The quantized model keeps its weights in a library's own storage, or in a graph.
    """
    try:
        _, pairs = layers.weight_pairs(full, quantized, scope)
    except InputError as error:
        raise NotShownError(f"the weights of {quantized.name}, quantized, cannot be looked at: {error}") from None
    return [_spectrum(pair.name, pair.full, pair.quantized) for pair in pairs]


def _spectrum(name: str, weight: torch.Tensor, quantized: torch.Tensor) -> WeightSpectrum:
    w, q = weight.double(), quantized.double()
    if w.shape[0] < w.shape[1]:  # the Gram matrix of the shorter side has all singular values
        w, q = w.T, q.T
    power, vectors = torch.linalg.eigh(w.T @ w)
    error = ((q - w) @ vectors).square().sum(dim=0).flip(0)
    quantized_power = torch.linalg.eigvalsh(q.T @ q).flip(0)
    full_values, quantized_values = (
        squares.clamp(min=0).sqrt().cpu().numpy() for squares in (power.flip(0), quantized_power)
    )
    return WeightSpectrum(name=name, singular_values=full_values, quantized=quantized_values, error=error.cpu().numpy())


def metrics(spectra: Sequence[WeightSpectrum]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics of weights, by name, in full precision and quantized.

    Gates hold them to tolerances without intervals, because nothing in them is drawn at random.

    Args:
        spectra: The spectra of all weights; at least one.
    """
    sums = [spectrum.sums() for spectrum in spectra]
    errors = {
        f"spectral.weight_error{band and '_'}{band}": math.sqrt(
            sum(by_band[band][0] for by_band in sums) / sum(by_band[band][1] for by_band in sums)
        )
        for band in sums[0]
    }
    ratios = [
        effective_rank(spectrum.quantized**2) / effective_rank(spectrum.singular_values**2) for spectrum in spectra
    ]
    name = "spectral.weight_rank"
    return {**dict.fromkeys(errors, 0.0), name: 1.0}, {**errors, name: float(np.mean(ratios))}
