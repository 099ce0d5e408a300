import numpy as np
import pytest
import torch

from pytest_qreliab.metrics import spectral


def test_effective_rank_of_a_known_spectrum():
    rng = np.random.default_rng(0)
    left = np.linalg.qr(np.concatenate([np.ones((50, 1)), rng.normal(size=(50, 4))], axis=1))[0][:, 1:]
    right = np.linalg.qr(rng.normal(size=(8, 4)))[0]
    flat = left @ right.T  # four equal singular values, columns of mean zero
    assert spectral.effective_rank(flat + 3.0) == pytest.approx(4.0, abs=1e-9)
    p = np.array([8.0, 4.0, 2.0, 1.0]) / 15
    uneven = left @ np.diag(np.sqrt(p)) @ right.T
    assert spectral.effective_rank(uneven) == pytest.approx(np.exp(-(p * np.log(p)).sum()), abs=1e-9)


def test_effective_rank_is_the_same_for_more_dimensions_than_samples():
    x = np.random.default_rng(1).normal(size=(6, 40))
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    p = s[s > 1e-9] ** 2 / (s**2).sum()
    assert spectral.effective_rank(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


def test_effective_rank_of_equal_features_is_no_number():
    assert np.isnan(spectral.effective_rank(np.ones((5, 3))))


def test_high_band_share_of_gratings():
    places = torch.arange(8)

    def grating(cycles_per_patch: float) -> torch.Tensor:
        return torch.cos(2 * torch.pi * cycles_per_patch * places).expand(8, 8)

    maps = torch.stack([grating(1 / 8), grating(2 / 8), grating(3 / 8), grating(1 / 8) + 2 * grating(3 / 8)])
    # Half the Nyquist radius is 1/4 cycle per patch, and belongs to the low band; power goes with the square.
    expected = torch.tensor([0.0, 0.0, 1.0, 4 / 5], dtype=torch.float64)
    torch.testing.assert_close(spectral.high_band_share(maps[:, None] + 7.0), expected, atol=1e-6, rtol=0)


def test_high_band_share_of_white_noise_is_the_share_of_frequencies():
    maps = torch.randn(64, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    f = np.fft.fftfreq(8)
    radius = np.hypot(f[:, None], f)
    expected = (radius > 0.25 + 1e-9).sum() / (radius > 0).sum()
    assert float(spectral.high_band_share(maps).mean()) == pytest.approx(expected, abs=0.005)


def test_high_band_share_of_a_constant_map_is_no_number():
    assert spectral.high_band_share(torch.ones(1, 3, 4, 4)).isnan().all()
