"""Spectral metrics of image features and patch maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]

CHUNK_ROWS = 4096


def effective_rank(features: npt.NDArray[np.floating]) -> float:
    """exp(-sum p log p) with p = s^2 / sum s^2, s the singular values of the centred features (n, dim).

    From 1 (all variation along one direction) to min(n - 1, dim); NaN where nothing varies. The entropy is
    Roy & Vetterli's (2007), over s^2 in place of s, as in the study.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    # The eigenvalues of the smaller Gram matrix are the squared singular values.
    if features.shape[0] >= features.shape[1]:
        parts = (features[start : start + CHUNK_ROWS] - mean for start in range(0, len(features), CHUNK_ROWS))
        gram = sum((part.T @ part for part in parts), np.zeros((len(mean), len(mean))))
    else:
        centred = features - mean
        gram = centred @ centred.T
    power = np.linalg.eigvalsh(gram).clip(min=0)
    total = power.sum()
    if not total > 0:
        return float("nan")
    p = power[power > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def high_band_share(maps: torch.Tensor) -> torch.Tensor:
    """Share of the non-DC power above half the Nyquist radius, per image: (batch,), in [0, 1], float64.

    `maps` is (batch, channels, rows, columns), real. Power is |2-D DFT|^2 summed over channels; a frequency is
    high when sqrt(f_rows^2 + f_columns^2) > 0.25 cycles per patch. NaN for an image whose map is constant.
    """
    rows, columns = maps.shape[-2:]
    power = torch.fft.fft2(maps.float()).abs().square().sum(dim=1).cpu().double()
    radius = torch.hypot(torch.fft.fftfreq(rows)[:, None], torch.fft.fftfreq(columns)[None, :])
    # Half the Nyquist radius is a frequency of the grid itself: keep rounding from moving it across.
    high = power[:, radius > 0.25 + 1e-6].sum(dim=1)
    share: torch.Tensor = high / power[:, radius > 0].sum(dim=1)
    return share
