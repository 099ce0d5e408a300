"""Risk and coverage, and failure prediction: by brute force, against sklearn and against the bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

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


def augrc_by_trapezoids(confidence, correct):
    """The area under the share of accepted errors by coverage (Traub et al. 2024), from threshold to threshold."""
    accepted = confidence[None, :] >= np.unique(confidence)[::-1, None]
    coverage, risk = accepted.mean(axis=1), (accepted * (1 - correct)).mean(axis=1)
    return auc(np.append(0, coverage), np.append(0, risk))


@given(samples())
def test_augrc_is_the_area_under_the_generalized_risk_coverage_curve(sample):
    area = selective.augrc(*sample)
    assert area == pytest.approx(augrc_by_trapezoids(*sample), abs=1e-12)
    assert -1e-12 <= area <= 0.5 + 1e-12


def test_augrc_follows_from_the_auroc_of_failures_and_the_accuracy():
    """Equation 5 of Traub et al. 2024."""
    confidence, correct = overconfident()
    a = correct.mean()
    expected = (1 - roc_auc_score(correct, confidence)) * a * (1 - a) + (1 - a) ** 2 / 2
    assert selective.augrc(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_augrc_of_no_errors_is_zero_and_of_errors_alone_one_half():
    assert selective.augrc(np.array([0.3, 0.9, 0.6]), np.ones(3)) == 0
    assert selective.augrc(np.array([0.3, 0.9, 0.6]), np.zeros(3)) == pytest.approx(0.5)


@given(samples(least=2))
def test_influence_on_augrc_is_the_derivative_by_the_samples_weight(sample):
    confidence, correct = sample
    n, step = len(confidence), 1e-5

    def weighted(weights):
        w = weights / weights.sum()
        accepts = (confidence[:, None] > confidence) + 0.5 * (confidence[:, None] == confidence)
        return float((w * (1 - correct)) @ accepts @ w)

    moved = np.array([[weighted(1 + sign * step * np.eye(n)[i]) for i in range(n)] for sign in (1, -1)])
    ours = selective.augrc_influence(confidence, correct)
    np.testing.assert_allclose(ours, n * (moved[0] - moved[1]) / (2 * step), atol=1e-5)


def overconfident(n: int = 800, seed: int = 0):
    """Confidences in hundredths, so that many are equal, and whether they are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.2, 1, n).round(2)
    return confidence, (rng.random(n) < confidence).astype(float)


def test_failure_prediction_agrees_with_sklearn():
    confidence, correct = overconfident()
    found = {name: of.value(confidence, correct) for name, of in selective.STATISTICS.items() if of.of_both}
    rate, recall, _ = roc_curve(correct, confidence, drop_intermediate=False)
    assert found == {
        "failure.auroc": pytest.approx(roc_auc_score(correct, confidence)),
        "failure.aupr_error": pytest.approx(average_precision_score(1 - correct, -confidence)),
        "failure.aupr_success": pytest.approx(average_precision_score(correct, confidence)),
        "failure.fpr95": pytest.approx(rate[recall >= 0.95][0]),
    }


def test_a_confidence_that_knows_every_error_has_the_best_values():
    confidence, correct = np.array([0.9, 0.8, 0.3, 0.2]), np.array([1.0, 1.0, 0.0, 0.0])
    found = [of.value(confidence, correct) for of in selective.STATISTICS.values() if of.of_both]
    assert found == [1, 1, 1, 0]


@pytest.mark.parametrize("name", selective.STATISTICS)
def test_influences_give_the_variance_that_a_bootstrap_shows(name):
    confidence, correct = overconfident()
    statistic = selective.STATISTICS[name]
    influence = statistic.influence(confidence, correct)
    assert influence.mean() == pytest.approx(0, abs=1e-9)
    draws = np.random.default_rng(1).integers(0, 800, (1000, 800))
    shown = np.std([statistic.value(confidence[draw], correct[draw]) for draw in draws])
    assert (influence.var() / 800) ** 0.5 == pytest.approx(shown, rel=0.08 if statistic.smooth else 0.2)
