"""Singular spectra of a model's weights, and what quantization does to them, rank by rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.rank import bands, effective_rank
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers
from pytest_qreliab.statistics.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class WeightSpectrum:
    """One weight, as a matrix (out, in), of rank r at most: the singular values (r,), descending, in full precision and
    `quantized`, and `error` (r,), the squared error along each right singular vector of full precision."""

    name: str
    singular_values: FloatArray
    quantized: FloatArray
    error: FloatArray

    def sums(self) -> dict[str, tuple[float, float]]:
        """The squared error and the squares (the energy), in all ("") and by band."""
        squares = self.singular_values**2
        ranges = {"": (0, len(squares)), **bands(len(squares))}
        return {name: (float(self.error[a:b].sum()), float(squares[a:b].sum())) for name, (a, b) in ranges.items()}


def spectra(full: Clip, quantized: Clip, scope: str) -> list[WeightSpectrum]:
    """Of every weight of the towers in `scope`, of `quantized` as it acts on an untransformed input.

    Raises InputError where the quantized model keeps its weights in a library's own storage, or in a graph.
    """
    try:
        _, pairs = layers.weight_pairs(full, quantized, scope)
    except InputError as error:
        raise InputError(f"the weights of {quantized.name}, quantized, cannot be looked at: {error}") from None
    return [_spectrum(pair.name, pair.full, pair.quantized) for pair in pairs]


def _spectrum(name: str, weight: torch.Tensor, quantized: torch.Tensor) -> WeightSpectrum:
    w, q = weight.double(), quantized.double()
    if w.shape[0] < w.shape[1]:  # the Gram matrix of the shorter side has all singular values
        w, q = w.T, q.T
    power, vectors = torch.linalg.eigh(w.T @ w)
    error = ((q - w) @ vectors).square().sum(dim=0).flip(0)
    of_quantized = torch.linalg.eigvalsh(q.T @ q).flip(0)
    full_values, quantized_values = (of.clamp(min=0).sqrt().cpu().numpy() for of in (power.flip(0), of_quantized))
    return WeightSpectrum(name, full_values, quantized_values, error.cpu().numpy())


def metrics(found: Sequence[WeightSpectrum]) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of weights, in full precision and quantized: tolerances hold them, as nothing in them is drawn."""
    sums = [of.sums() for of in found]
    errors = {
        f"spectral.weight_error{band and '_'}{band}": math.sqrt(
            sum(of[band][0] for of in sums) / sum(of[band][1] for of in sums)
        )
        for band in sums[0]
    }
    ratios = [effective_rank(of.quantized**2) / effective_rank(of.singular_values**2) for of in found]
    name = "spectral.weight_rank"
    return {**dict.fromkeys(errors, 0.0), name: 1.0}, {**errors, name: float(np.mean(ratios))}
