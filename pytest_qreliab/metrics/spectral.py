"""Fourier spectra of patch maps: what is smooth in them, what is fine, and what quantization does to each frequency.

Power is |2-D DFT|^2 summed over channels, by frequency, in cycles per patch, in the order of `torch.fft.fftfreq`.
"""

from __future__ import annotations

import numpy as np
import torch

from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.half_sampling import BlockIds, HalfMasks

# Half the Nyquist radius is a frequency of most grids itself: keep rounding from moving it across.
HALF_NYQUIST = 0.25 + 1e-6


def power(maps: torch.Tensor) -> torch.Tensor:
    """The power of each image's map: float64 (batch, rows, columns), on the CPU.

    `maps` is (batch, channels, rows, columns), real.
    """
    half = torch.view_as_real(torch.fft.rfft2(maps.float())).square().sum(dim=(1, 4)).cpu().double()
    rows, columns = maps.shape[-2:]
    # Of real maps the power at -f is that at f.
    mirrored = half[:, (-torch.arange(rows)) % rows][:, :, 1 : (columns + 1) // 2].flip(-1)
    return torch.cat([half, mirrored], dim=-1)


def radius(rows: int, columns: int) -> FloatArray:
    """The frequency of each place in a power map, cycles per patch: sqrt(f_rows^2 + f_columns^2)."""
    found: FloatArray = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns))
    return found


def high_band_share(of_maps: torch.Tensor) -> torch.Tensor:
    """Share of the non-DC power (batch, rows, columns) above half the Nyquist radius: (batch,), in [0, 1].

    High is what has more than 0.25 cycles per patch. NaN for an image whose map is constant.
    """
    at = torch.from_numpy(radius(*of_maps.shape[-2:]))
    share: torch.Tensor = of_maps[:, at > HALF_NYQUIST].sum(dim=1) / of_maps[:, at > 0].sum(dim=1)
    return share


def radial_profile(of_map: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The frequency, cycles per patch, and the mean power, of each ring of a power map (rows, columns), without DC.

    Rings are as wide as the frequencies of the longer side are apart.
    """
    at = radius(*of_map.shape)
    ring = np.rint(at * max(of_map.shape)).astype(np.int64)
    there = np.unique(ring[at > 0])
    return (
        np.array([at[ring == r].mean() for r in there]),
        np.array([of_map[(ring == r) & (at > 0)].mean() for r in there]),
    )


def relative_error(full: FloatArray, quantized: FloatArray) -> FloatArray:
    """The relative spectral error map |P_q - P_fp| / P_fp of two power maps; NaN where full precision has no power."""
    error = np.abs(quantized - full)
    return np.divide(error, full, out=np.full_like(error, np.nan), where=full > 0)


def error_map(full: FloatArray, quantized: FloatArray) -> FloatArray:
    """The same for whole power maps (rows, columns): NaN at DC as well, which is the mean of the map."""
    return np.where(radius(*full.shape) > 0, relative_error(full, quantized), np.nan)


class MapError:
    """`spectral.map_error`: the mean over the non-DC frequencies of the relative spectral error of mean power maps.

    A table of sums for `statistics.halves`, of the power maps (n, rows, columns) of two models on the same samples.
    """

    def __init__(self, full: FloatArray, quantized: FloatArray, bundle: BlockIds) -> None:
        there = radius(*full.shape[1:]) > 0
        count = int(bundle.max()) + 1
        added = np.zeros((2, int(there.sum()), count))
        for of_model, maps in zip(added, (full, quantized), strict=True):
            np.add.at(of_model.T, bundle, maps[:, there])
        self._sums = added.reshape(-1, count)

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        return self._sums.sum(axis=1, keepdims=True) if masks is None else self._sums @ masks

    def values(self, sums: FloatArray) -> dict[str, FloatArray]:
        full, quantized = np.split(sums, 2)
        return {"spectral.map_error": relative_error(full, quantized).mean(axis=0)}
