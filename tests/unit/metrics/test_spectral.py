import numpy as np
import pytest
import torch

from pytest_qreliab.metrics import spectral
from pytest_qreliab.statistics import half_sampling


def test_high_band_share_of_gratings():
    places = torch.arange(8)

    def grating(cycles_per_patch: float) -> torch.Tensor:
        return torch.cos(2 * torch.pi * cycles_per_patch * places).expand(8, 8)

    maps = torch.stack([grating(1 / 8), grating(2 / 8), grating(3 / 8), grating(1 / 8) + 2 * grating(3 / 8)])
    # Half the Nyquist radius is 1/4 cycle per patch, and belongs to the low band; power goes with the square.
    expected = torch.tensor([0.0, 0.0, 1.0, 4 / 5], dtype=torch.float64)
    torch.testing.assert_close(
        spectral.high_band_share(spectral.power(maps[:, None] + 7.0)), expected, atol=1e-6, rtol=0
    )


def test_high_band_share_of_white_noise_is_the_share_of_frequencies():
    maps = torch.randn(64, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    f = np.fft.fftfreq(8)
    radius = np.hypot(f[:, None], f)
    expected = (radius > 0.25 + 1e-9).sum() / (radius > 0).sum()
    assert float(spectral.high_band_share(spectral.power(maps)).mean()) == pytest.approx(expected, abs=0.005)


def test_high_band_share_of_a_constant_map_is_no_number():
    assert spectral.high_band_share(spectral.power(torch.ones(1, 3, 4, 4))).isnan().all()


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (5, 6), (6, 5), (1, 4), (3, 1), (14, 14)])
def test_power_is_that_of_the_whole_transform(shape):
    maps = torch.randn(3, 5, *shape, generator=torch.Generator().manual_seed(0))
    expected = torch.fft.fft2(maps.double()).abs().square().sum(dim=1)
    torch.testing.assert_close(spectral.power(maps), expected, rtol=1e-4, atol=1e-6)


def test_white_noise_has_a_flat_profile():
    maps = torch.randn(400, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    frequency, profile = spectral.radial_profile(spectral.power(maps).mean(dim=0).numpy())
    assert np.rint(12 * frequency).tolist() == list(range(1, 9))
    assert profile == pytest.approx(np.full(len(profile), 16 * 144), rel=0.05)


def test_a_grating_is_one_peak_at_its_frequency():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    power = spectral.power(torch.cos(2 * torch.pi * (3 * x + 2 * y) / 12)[None, None])[0].numpy()
    peaks = np.argwhere(power > 1e-3 * power.max())
    assert sorted(map(tuple, peaks)) == [(2, 3), (10, 9)]
    frequency, profile = spectral.radial_profile(power)
    assert frequency[profile.argmax()] == pytest.approx(np.hypot(2, 3) / 12, abs=1 / 24)


def test_a_low_pass_filter_leaves_the_known_share():
    """Of white noise, of which all but a tenth of the amplitude above half the Nyquist radius is taken out."""
    at = spectral.radius(10, 10)
    high = torch.from_numpy(at > spectral.HALF_NYQUIST)
    maps = torch.randn(300, 8, 10, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    filtered = torch.fft.ifft2(torch.fft.fft2(maps) * torch.where(high, 0.1, 1.0)).real
    share = float(spectral.high_band_share(spectral.power(filtered)).mean())
    above, below = int(high.sum()), int((at > 0).sum()) - int(high.sum())
    assert share == pytest.approx(0.01 * above / (0.01 * above + below), rel=0.03)
    error = spectral.relative_error(*(spectral.power(of).mean(dim=0).numpy() for of in (maps, filtered)))
    assert error[high.numpy()] == pytest.approx(np.full(above, 0.99), rel=1e-4)
    assert error[~high.numpy()].max() < 1e-4


def test_the_map_error_is_the_mean_over_frequencies_and_its_error_that_of_other_samples():
    def maps(seed: int):
        rng = np.random.default_rng(seed)
        full = rng.gamma(2.0, size=(200, 4, 4)) + 1
        return full, full * (1.1 + 0.3 * rng.normal(size=full.shape))

    values, errors = [], []
    for seed in range(60):
        full, quantized = maps(seed)
        bundle = half_sampling.assign_blocks(200)
        none, table = (spectral.MapError(full, of, bundle) for of in (full, quantized))
        assert none.metrics_from_sums(none.sums())["spectral.map_error"] == 0
        values.append(table.metrics_from_sums(table.sums())["spectral.map_error"][0])
        errors.append(half_sampling.half_sample_errors([(none, table)], 200)["spectral.map_error"])
    expected = np.abs(quantized.mean(0) - full.mean(0)) / full.mean(0)
    assert values[-1] == pytest.approx(expected.ravel()[1:].mean())
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)
