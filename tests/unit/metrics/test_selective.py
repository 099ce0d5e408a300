"""Risk and coverage, by brute force and against the bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pytest_qreliab.metrics import selective


@st.composite
def samples(draw, least: int = 1):
    """Confidences, many of them equal, on an edge, 0 or 1, and whether they are right."""
    n = draw(st.integers(least, 40))
    one = st.floats(0, 1) | st.integers(0, 15).map(lambda k: k / 15)
    confidence = draw(npst.arrays(np.float64, n, elements=one))
    return confidence, draw(npst.arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))


def aurc_by_brute_force(confidence, correct, weights=None):
    """Over every sample's threshold, as a weighted mean."""
    w = np.ones(len(confidence)) if weights is None else weights
    accepted = confidence[None, :] >= confidence[:, None]
    risk = (accepted * w * (1 - correct)).sum(axis=1) / (accepted * w).sum(axis=1)
    r = (w * (1 - correct)).sum() / w.sum()
    least = r + (0 if r == 1 else (1 - r) * np.log1p(-r))
    area = (w * risk).sum() / w.sum()
    return area, area - least


@given(samples())
def test_aurc_and_its_excess_by_brute_force(sample):
    expected = aurc_by_brute_force(*sample)
    assert (selective.aurc(*sample), selective.excess_aurc(*sample)) == pytest.approx(expected, abs=1e-12)


@given(samples(), st.data())
def test_aurc_is_a_mean_risk_whatever_the_order(sample, data):
    confidence, correct = sample
    order = np.array(data.draw(st.permutations(range(len(confidence)))))
    area = selective.aurc(confidence, correct)
    assert 0 <= area <= 1
    assert selective.aurc(confidence[order], correct[order]) == pytest.approx(area, abs=1e-12)
    if correct.all() or not correct.any():
        assert area == 1 - correct[0]
        assert selective.excess_aurc(confidence, correct) == pytest.approx(0, abs=1e-12)


@given(samples())
def test_only_ranks_count_in_aurc(sample):
    confidence, correct = np.round(sample[0], 6), sample[1]
    assert selective.aurc(confidence**3, correct) == pytest.approx(selective.aurc(confidence, correct), abs=1e-12)


def test_aurc_of_equal_confidences_is_the_error_rate():
    assert selective.aurc(np.full(8, 0.5), np.arange(8) < 6) == pytest.approx(0.25)


def test_the_excess_is_above_the_optimum_of_many_samples():
    """The documented disagreement: of n samples the best order has r / 2n left, which others subtract."""
    n, r = 1000, 0.2
    confidence, correct = np.linspace(1, 0, n), (np.arange(n) < n * (1 - r)).astype(float)
    assert selective.excess_aurc(confidence, correct) == pytest.approx(r / (2 * n), rel=0.01)


@given(samples(least=2))
def test_influence_on_aurc_is_the_derivative_by_the_samples_weight(sample):
    confidence, correct = sample
    n, step = len(confidence), 1e-6
    numeric = []
    for i in range(n):
        moved = [
            np.array(aurc_by_brute_force(confidence, correct, np.ones(n) + sign * step * (np.arange(n) == i)))
            for sign in (1, -1)
        ]
        numeric.append(n * (moved[0] - moved[1]) / (2 * step))
    for ours, theirs in zip(selective.aurc_influence(confidence, correct), np.transpose(numeric), strict=True):
        assert ours.mean() == pytest.approx(0, abs=1e-9)
        if correct.any():  # the least AURC has no derivative where all are wrong
            np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_influence_on_aurc_gives_the_variance_that_a_bootstrap_shows():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 800)
    correct = (rng.random(800) < confidence).astype(float)
    draws = rng.integers(0, 800, (1500, 800))
    for function, influence in zip(
        (selective.aurc, selective.excess_aurc), selective.aurc_influence(confidence, correct), strict=True
    ):
        shown = np.std([function(confidence[draw], correct[draw]) for draw in draws])
        assert (influence.var() / 800) ** 0.5 == pytest.approx(shown, rel=0.06)


@given(samples())
def test_every_sample_twice_has_the_same_aurc(sample):
    assert selective.aurc(*(np.repeat(x, 2) for x in sample)) == pytest.approx(selective.aurc(*sample), abs=1e-12)
