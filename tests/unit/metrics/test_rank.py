"""Features by rank, against singular value decompositions, brute force, other libraries and the bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import subspace_angles
from scipy.stats import norm

from pytest_qreliab.metrics import rank
from pytest_qreliab.metrics.rank import HIGHEST_SQNR, RANKS, FeaturePair, Spectrum


def features(n: int = 300, dim: int = 12, seed: int = 0, noise: float = 0.0):
    """Of falling variance, far from the origin; the same samples for every noise."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, dim)) * 0.7 ** np.arange(dim) @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return (mixed + 2.0 + noise * rng.normal(size=(n, dim))).astype(np.float32)


def known(values):
    """Features (50, 8) whose centred singular values are these."""
    rng = np.random.default_rng(0)
    left = np.linalg.qr(np.concatenate([np.ones((50, 1)), rng.normal(size=(50, len(values)))], axis=1))[0][:, 1:]
    return left @ np.diag(values) @ np.linalg.qr(rng.normal(size=(8, len(values))))[0].T + 3.0


def test_ranks_of_a_known_spectrum():
    flat = Spectrum.fit(known([1.0] * 4))
    assert [getattr(flat, name) for name in RANKS] == pytest.approx([4.0] * 3, abs=1e-9)
    p = np.array([8.0, 4.0, 2.0, 1.0]) / 15
    uneven = Spectrum.fit(known(np.sqrt(p)))
    assert uneven.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), abs=1e-9)
    assert uneven.stable_rank == pytest.approx(15 / 8)
    assert uneven.participation_ratio == pytest.approx(15**2 / (64 + 16 + 4 + 1))
    assert uneven.power[:4] * 50 == pytest.approx(p)


def test_the_effective_rank_with_more_dimensions_than_samples():
    x = np.random.default_rng(1).normal(size=(6, 40))
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    p = s[s > 1e-9] ** 2 / (s**2).sum()
    assert Spectrum.fit(x).effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


def test_equal_features_have_no_rank():
    assert np.isnan([getattr(Spectrum.fit(np.ones((5, 3))), name) for name in RANKS]).all()


def test_sums_do_not_depend_on_the_chunks(monkeypatch):
    full, quantized = features(), features(noise=0.1)
    whole, pair = Spectrum.fit(full), FeaturePair(Spectrum.fit(full), full, quantized, "x")
    monkeypatch.setattr(rank, "CHUNK_ROWS", 70)
    parts, again = Spectrum.fit(full), FeaturePair(Spectrum.fit(full), full, quantized, "x")
    assert parts.power == pytest.approx(whole.power)
    assert again.residual == pytest.approx(pair.residual)
    assert again.cka.value == pytest.approx(pair.cka.value)


@pytest.mark.parametrize(("width", "ends"), [(512, (8, 64)), (128, (8, 64)), (64, (1, 8)), (96, (2, 12)), (8, (1, 2))])
def test_bands_cover_all_ranks_once(width, ends):
    found = rank.bands(width)
    assert list(found.values()) == [(0, ends[0]), ends, (ends[1], width)]


def test_signal_residual_and_sqnr_are_the_studys():
    full, quantized = (x.astype(float) for x in (features(), features(noise=0.1)))
    pair = FeaturePair(Spectrum.fit(full), full, quantized, "x")
    centred = full - full.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2].T
    signal, residual = (((x @ directions) ** 2).mean(0) for x in (centred, quantized - full))
    assert pair.signal == pytest.approx(signal)
    assert pair.residual == pytest.approx(residual)
    assert pair.sqnr == pytest.approx(10 * np.log10(signal / residual))
    assert pair.residual_ratio("").value == pytest.approx(residual.sum() / signal.sum())
    assert rank.residual_ratio(full, quantized) == pytest.approx(residual.sum() / signal.sum())
    first, end = pair.bands["mid_rank"]
    assert pair.residual_ratio("mid_rank").value == pytest.approx(residual[first:end].sum() / signal[first:end].sum())


def test_equal_features_differ_in_nothing():
    x = features()
    pair = FeaturePair(Spectrum.fit(x), x, x, "x")
    assert not pair.residual.any()
    assert pair.sqnr == pytest.approx(HIGHEST_SQNR)
    assert pair.cka.value == pytest.approx(1.0, abs=1e-12)
    assert pair.cka.interval(0.05) == pytest.approx((1.0, 1.0), abs=1e-9)
    assert pair.principal_angle(Spectrum.fit(x)) == pytest.approx(0.0, abs=1e-6)
    for band in pair.bands:
        assert pair.residual_ratio(band).interval(0.05) == (0.0, 0.0)


def test_a_band_without_signal_has_no_residual_ratio():
    x = known([2.0, 1.0])
    ratio = FeaturePair(Spectrum.fit(x), x, x + np.random.default_rng(0).normal(size=x.shape), "x").residual_ratio(
        "high_rank"
    )
    assert np.isnan(ratio.value)


@given(arrays(np.float64, (3, 3), elements=st.floats(-2, 2)), st.floats(0.1, 10), st.integers(0, 100))
def test_cka_is_blind_to_rotation_and_scale_and_is_at_most_one(extra, factor, seed):
    x = features(60, 3, seed).astype(float)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    spectrum = Spectrum.fit(x)
    assert FeaturePair(spectrum, x, factor * x @ rotation + 5, "x").cka.value == pytest.approx(1.0, abs=1e-6)
    other = x @ extra + np.random.default_rng(seed).normal(size=x.shape)
    found = FeaturePair(spectrum, x, other, "x").cka.value
    a, b = x - x.mean(0), other - other.mean(0)
    expected = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert found == pytest.approx(expected, abs=1e-9)
    assert -1e-9 <= found <= 1 + 1e-9


def test_principal_angles_are_scipys():
    first, second = Spectrum.fit(features(dim=128)), Spectrum.fit(features(dim=128, noise=0.05))
    x = features(dim=128)
    found = FeaturePair(first, x, x, "x").principal_angle(second)
    expected = np.degrees(subspace_angles(first.directions[:, :8], second.directions[:, :8]).max())
    assert found == pytest.approx(expected, rel=1e-6)
    assert found > 1


def test_a_band_alone_is_the_features_with_the_others_at_their_mean():
    x, rng = features(), np.random.default_rng(3)
    classifier = rng.normal(size=(5, 12)).astype(np.float32)
    spectrum = Spectrum.fit(x)
    for first, end in rank.bands(12).values():
        v = spectrum.directions[:, first:end]
        kept = x.mean(0, dtype=float) + (x - x.mean(0, dtype=float)) @ v @ v.T
        found = rank.predict_from_band(x, spectrum, (first, end), classifier)
        assert (found == (kept @ classifier.T).argmax(1)).all()
    whole = rank.predict_from_band(x, spectrum, (0, 12), classifier)
    assert (whole == (x.astype(float) @ classifier.T).argmax(1)).all()


@pytest.mark.parametrize("name", [*RANKS, "residual", "residual mid_rank", "cka"])
def test_intervals_agree_with_the_bootstrap(name):
    full, quantized = features(600), features(600, noise=0.15)
    fixed = Spectrum.fit(full)

    def change(full, quantized):
        if name in RANKS:
            return getattr(Spectrum.fit(quantized), name) - getattr(Spectrum.fit(full), name)
        # The directions are taken as they are found: their own error is of second order.
        pair = FeaturePair(Spectrum.fit(full) if name == "cka" else fixed, full, quantized, "x")
        return pair.cka.value if name == "cka" else pair.residual_ratio(name.partition(" ")[2]).value

    if name in RANKS:
        before, after = (Spectrum.fit(x).estimate(name, x, "x") for x in (full, quantized))
        estimate = after - before
    else:
        pair = FeaturePair(fixed, full, quantized, "x")
        estimate = pair.cka if name == "cka" else pair.residual_ratio(name.partition(" ")[2])
    low, high = estimate.interval(0.05)
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, 600, 600) for _ in range(400))
    replicates = [change(full[index], quantized[index]) for index in drawn]
    assert estimate.value == pytest.approx(change(full, quantized), rel=1e-6)
    assert (high - low) / 2 == pytest.approx(norm.isf(0.05) * np.std(replicates), rel=0.12)
