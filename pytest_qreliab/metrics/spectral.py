"""Fourier spectra of patch maps: their power, and its error, by frequency.

Power is |2-D DFT|^2 summed over channels. Frequencies are in cycles per patch, in the order of `torch.fft.fftfreq`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from pytest_qreliab.statistics.arrays import FloatArray
from pytest_qreliab.statistics.half_sampling import BlockIds, HalfMasks

# Half the Nyquist radius is itself a frequency of most grids. The margin keeps rounding from not_dc it across.
HALF_NYQUIST = 0.25 + 1e-6


def power(maps: torch.Tensor) -> torch.Tensor:
    """Compute the power map of each image.

    Args:
        maps: Real patch maps, shape (batch, channels, rows, columns).

    Returns:
        The power at each frequency, float64 on the CPU, shape (batch, rows, columns).

    Example:
        >>> import torch
        >>> power(torch.tensor([[[[1.0, -1.0]]]])).tolist()
        [[[0.0, 4.0]]]
    """
    half = torch.view_as_real(torch.fft.rfft2(maps.float())).square().sum(dim=(1, 4)).cpu().double()
    rows, columns = maps.shape[-2:]
    # The power of a real map at -f is that at f.
    mirrored = half[:, (-torch.arange(rows)) % rows][:, :, 1 : (columns + 1) // 2].flip(-1)
    return torch.cat([half, mirrored], dim=-1)


def radius(rows: int, columns: int) -> FloatArray:
    """Return the frequency of each entry of a power map.

    It is sqrt(f_rows^2 + f_columns^2).

    Args:
        rows: The number of rows.
        columns: The number of columns.

    Returns:
        Frequencies in cycles per patch, shape (rows, columns).

    Example:
        >>> radius(1, 4).tolist()
        [[0.0, 0.25, 0.5, 0.25]]
    """
    frequencies: FloatArray = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns))
    return frequencies


def high_band_share(power_maps: torch.Tensor) -> torch.Tensor:
    """Compute the share of power above half the Nyquist radius.

    That is 0.25 cycles per patch. DC is left out.

    Args:
        power_maps: Power maps, shape (batch, rows, columns).

    Returns:
        Shares in [0, 1], shape (batch,). An image whose patch map is constant has NaN.

    Example:
        >>> import torch
        >>> high_band_share(torch.tensor([[[9.0, 1.0, 2.0, 1.0]]])).tolist()
        [0.5]
    """
    at = torch.from_numpy(radius(*power_maps.shape[-2:]))
    share: torch.Tensor = power_maps[:, at > HALF_NYQUIST].sum(dim=1) / power_maps[:, at > 0].sum(dim=1)
    return share


class RadialProfile(NamedTuple):
    """The rings of a power map from low to high frequency, shape (rings,)."""

    frequency: FloatArray  # the mean frequency, cycles per patch
    power: FloatArray  # the mean power


def radial_profile(power_map: FloatArray) -> RadialProfile:
    """Average a power map over rings of equal frequency, without DC.

    Rings are as wide as the spacing of the frequencies along the longer side.

    Args:
        power_map: A power map, shape (rows, columns).

    Example:
        >>> import numpy as np
        >>> profile = radial_profile(np.array([[9.0, 1.0, 2.0, 3.0]]))
        >>> profile.frequency.tolist(), profile.power.tolist()
        ([0.25, 0.5], [2.0, 2.0])
    """
    at = radius(*power_map.shape)
    ring = np.rint(at * max(power_map.shape)).astype(np.int64)
    rings = np.unique(ring[at > 0])
    return RadialProfile(
        np.array([at[ring == r].mean() for r in rings]),
        np.array([power_map[(ring == r) & (at > 0)].mean() for r in rings]),
    )


def relative_error(full: FloatArray, quantized: FloatArray) -> FloatArray:
    """Compute the relative spectral error |P_q - P_fp| / P_fp of power.

    Args:
        full: Powers of the full-precision model, any shape.
        quantized: Powers of the quantized model, the same shape.

    Returns:
        Relative errors of that shape, NaN if full precision has no power there.

    Example:
        >>> import numpy as np
        >>> relative_error(np.array([2.0, 0.0]), np.array([3.0, 1.0])).tolist()
        [0.5, nan]
    """
    error = np.abs(quantized - full)
    return np.divide(error, full, out=np.full_like(error, np.nan), where=full > 0)


def error_map(full: FloatArray, quantized: FloatArray) -> FloatArray:
    """Compute the relative spectral error of a whole power map.

    Args:
        full: The power map of the full-precision model, shape (rows, columns).
        quantized: The power map of the quantized model, shape (rows, columns).

    Returns:
        Relative errors, shape (rows, columns). They are NaN at DC, which is the mean of the map, and at
        frequencies without power in full precision.

    Example:
        >>> import numpy as np
        >>> error_map(np.array([[8.0, 2.0]]), np.array([[4.0, 3.0]])).tolist()
        [[nan, 0.5]]
    """
    return np.where(radius(*full.shape) > 0, relative_error(full, quantized), np.nan)


class MapError:
    """The table of `spectral.map_error`, for `statistics.half_sampling`.

    The metric is the mean over the frequencies other than DC of the relative spectral error of mean power maps.

    Args:
        full: Power maps of the full-precision model, shape (n, rows, columns).
        quantized: Power maps of the quantized model for the same samples, shape (n, rows, columns).
        blocks: The block of each sample, shape (n,).

    Example:
        >>> import numpy as np
        >>> full = np.array([[[8.0, 2.0]], [[8.0, 4.0]]])
        >>> table = MapError(full, 1.5 * full, np.arange(2))
        >>> table.metrics_from_sums(table.sums())["spectral.map_error"].tolist()
        [0.5]
    """

    def __init__(self, full: FloatArray, quantized: FloatArray, blocks: BlockIds) -> None:
        not_dc = radius(*full.shape[1:]) > 0
        count = int(blocks.max()) + 1
        added = np.zeros((2, int(not_dc.sum()), count))
        for sums, maps in zip(added, (full, quantized), strict=True):
            np.add.at(sums.T, blocks, maps[:, not_dc])
        self._sums = added.reshape(-1, count)

    def sums(self, masks: HalfMasks | None = None) -> FloatArray:
        """Return the sums over subsets of the blocks, shape (sums, subsets)."""
        return self._sums.sum(axis=1, keepdims=True) if masks is None else self._sums @ masks

    def metrics_from_sums(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Return the metric of each subset, shape (subsets,)."""
        full, quantized = np.split(sums, 2)
        return {"spectral.map_error": relative_error(full, quantized).mean(axis=0)}
