import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pytest_qreliab.metrics import ood, registry

# Few distinct values, so that ties are the rule.
tied_scores = npst.arrays(np.float64, st.integers(2, 25), elements=st.integers(0, 6).map(float))


@given(tied_scores, tied_scores)
def test_auroc_with_ties_agrees_with_sklearn_and_brute_force(of_id, of_ood):
    ours = ood.SortedScores(of_id, of_ood).auroc()
    truth = np.concatenate([np.zeros(len(of_id)), np.ones(len(of_ood))])
    assert ours == pytest.approx(roc_auc_score(truth, np.concatenate([of_id, of_ood])), abs=1e-12)
    pairs = (of_ood[:, None] > of_id).mean() + (of_ood[:, None] == of_id).mean() / 2
    assert ours == pytest.approx(pairs, abs=1e-12)


@given(tied_scores, tied_scores)
def test_placements_are_the_brute_force_shares(of_id, of_ood):
    wins = (of_ood[:, None] > of_id) + (of_ood[:, None] == of_id) / 2
    by_ood, by_id = ood.SortedScores(of_id, of_ood).placements()
    np.testing.assert_allclose(by_ood, wins.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(by_id, wins.mean(axis=0), atol=1e-12)


def fpr_of_roc(positives, negatives):
    """Off sklearn's curve, positives being those of high scores."""
    truth = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    fpr, tpr, _ = roc_curve(truth, np.concatenate([positives, negatives]), drop_intermediate=False)
    return fpr[np.argmax(tpr >= 0.95 - 1e-12)]


@given(tied_scores, tied_scores)
def test_both_fpr95_are_the_first_thresholds_of_sklearns_curves(of_id, of_ood):
    assert ood.SortedScores(of_id, of_ood).fpr95("id") == pytest.approx(fpr_of_roc(-of_id, -of_ood), abs=1e-12)
    assert ood.SortedScores(of_id, of_ood).fpr95("ood") == pytest.approx(fpr_of_roc(of_ood, of_id), abs=1e-12)


def test_which_class_is_positive_makes_all_the_difference():
    of_id = np.array([0.0] * 95 + [9.0] * 5)
    of_ood = np.array([1.0] * 90 + [-1.0] * 10)
    assert ood.SortedScores(of_id, of_ood).fpr95("id") == 0.1
    assert ood.SortedScores(of_id, of_ood).fpr95("ood") == 1.0


@given(tied_scores, tied_scores)
def test_fpr95_by_brute_force_over_thresholds_in_integers(of_id, of_ood):
    for positives, negatives, ours in (
        (of_id, of_ood, ood.SortedScores(of_id, of_ood).fpr95("id")),
        (-of_ood, -of_id, ood.SortedScores(of_id, of_ood).fpr95("ood")),
    ):
        threshold = next(t for t in np.sort(positives) if 20 * (positives <= t).sum() >= 19 * len(positives))
        assert ours == (negatives <= threshold).mean()


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_fpr95_influence_gives_the_variance_that_a_bootstrap_shows(positive):
    rng = np.random.default_rng(0)
    of_id, of_ood = rng.normal(size=4000), rng.normal(1.5, 1, 3000)
    of_each = ood.SortedScores(of_id, of_ood).fpr95_influence(positive)

    def plain(*scores):
        return ood.SortedScores(*scores).fpr95(positive)

    shown = [plain(rng.choice(of_id, 4000), rng.choice(of_ood, 3000)) for _ in range(1500)]
    assert np.std(shown) == pytest.approx(np.sqrt(sum(one.var() / len(one) for one in of_each)), rel=0.15)


@given(tied_scores, tied_scores)
def test_aupr_is_sklearns_average_precision(of_id, of_ood):
    is_ood, both = np.repeat([0, 1], [len(of_id), len(of_ood)]), np.concatenate([of_id, of_ood])
    assert ood.SortedScores(of_id, of_ood).average_precision("ood") == pytest.approx(
        average_precision_score(is_ood, both), abs=1e-12
    )
    assert ood.SortedScores(of_id, of_ood).average_precision("id") == pytest.approx(
        average_precision_score(1 - is_ood, -both), abs=1e-12
    )


@pytest.mark.parametrize("positive", ["id", "ood"])
@settings(max_examples=30)
@given(tied_scores, tied_scores)
def test_aupr_influence_is_the_derivative_of_the_weighted_average_precision(positive, of_id, of_ood):
    is_ood, both = np.repeat([0, 1], [len(of_id), len(of_ood)]), np.concatenate([of_id, of_ood])
    truth, scores = (is_ood, both) if positive == "ood" else (1 - is_ood, -both)

    def derivative(i):
        values = []
        for step in (1e-5, -1e-5):
            weights = np.ones(len(both))
            weights[i] += step
            values.append(average_precision_score(truth, scores, sample_weight=weights))
        return (values[0] - values[1]) / 2e-5

    numeric = np.array([derivative(i) for i in range(len(both))])
    influences = ood.SortedScores(of_id, of_ood).average_precision_influence(positive)
    for influence, of_group in zip(influences, np.split(numeric, [len(of_id)]), strict=True):
        assert influence.mean() == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(influence, len(influence) * (of_group - of_group.mean()), atol=1e-6)


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_aupr_influence_of_groups_from_one_set_gives_the_variance_that_a_bootstrap_shows(positive):
    """The share of positives varies as well, and with it the precision."""
    rng = np.random.default_rng(0)
    is_ood = rng.random(2000) < 0.3
    scores = rng.normal(size=2000) + is_ood
    of_each = ood.SortedScores(scores[~is_ood], scores[is_ood]).average_precision_influence(positive, fixed_sizes=False)
    influence = np.empty(2000)
    for of_group, group in zip(of_each, (~is_ood, is_ood), strict=True):
        influence[group] = of_group * 2000 / group.sum()
    assert influence.mean() == pytest.approx(0, abs=1e-9)
    draws = rng.integers(0, 2000, (2000, 2000))
    shown = [ood.SortedScores(scores[d][~is_ood[d]], scores[d][is_ood[d]]).average_precision(positive) for d in draws]
    assert np.std(shown) == pytest.approx((influence.var() / 2000) ** 0.5, rel=0.06)


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_aupr_influence_gives_the_variance_that_a_bootstrap_shows(positive):
    rng = np.random.default_rng(0)
    of_id, of_ood = rng.normal(size=1500), rng.normal(1, 1.2, 600)
    of_each = ood.SortedScores(of_id, of_ood).average_precision_influence(positive)

    def plain(*scores):
        return ood.SortedScores(*scores).average_precision(positive)

    shown = [plain(rng.choice(of_id, 1500), rng.choice(of_ood, 600)) for _ in range(3000)]
    assert np.std(shown) == pytest.approx(np.sqrt(sum(one.var() / len(one) for one in of_each)), rel=0.05)


def test_the_help_says_which_sets_are_meant():
    told = [registry.lookup(f"ood.fpr95.knn{part}").help for part in ("", ".near", ".letters")]
    assert told[1:] == [f"{told[0]}, mean over the near sets", f"{told[0]}, on letters"]


def test_statistics_are_those_of_the_registry():
    assert tuple(ood.STATISTICS) == registry.OOD_STATISTICS


EACH = pytest.mark.parametrize("statistic", ood.STATISTICS)


@EACH
@given(tied_scores, tied_scores, st.data())
def test_neither_order_nor_doubling_nor_a_rising_function_changes_a_value(statistic, of_id, of_ood, data):
    def function(*scores):
        return ood.STATISTICS[statistic].value(ood.SortedScores(*scores))

    value = function(of_id, of_ood)
    assert 0 <= value <= 1
    shuffled = (np.array(data.draw(st.permutations(list(group)))) for group in (of_id, of_ood))
    assert function(*shuffled) == pytest.approx(value, abs=1e-12)
    assert function(np.repeat(of_id, 2), np.repeat(of_ood, 2)) == pytest.approx(value, abs=1e-12)
    assert function(np.exp(of_id), np.exp(of_ood)) == pytest.approx(value, abs=1e-12)


@EACH
@given(tied_scores, tied_scores)
def test_influences_have_a_mean_of_zero_and_a_place_for_each_sample(statistic, of_id, of_ood):
    influences = ood.STATISTICS[statistic].influences(ood.SortedScores(of_id, of_ood))
    assert [len(one) for one in influences] == [len(of_id), len(of_ood)]
    for one in influences:
        assert one.mean() == pytest.approx(0, abs=1e-9)


@EACH
@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (2, 1), (7, 2)])
def test_of_few_samples_there_is_a_value(statistic, sizes):
    function, influences = ood.STATISTICS[statistic].value, ood.STATISTICS[statistic].influences
    ranked = ood.SortedScores(np.arange(sizes[0], dtype=float), np.arange(sizes[1], dtype=float))
    assert 0 <= function(ranked) <= 1
    assert all(np.isfinite(one).all() for one in influences(ranked))


@EACH
def test_of_equal_scores_no_sample_has_any_influence(statistic):
    for one in ood.STATISTICS[statistic].influences(ood.SortedScores(np.ones(6), np.ones(4))):
        np.testing.assert_allclose(one, 0, atol=1e-12)


def delong_by_brute_force(pairs):
    """The covariance matrix of AUROCs on the same samples, from all pairs of an ID and an OOD sample (DeLong 1988)."""
    wins = [(of_ood[:, None] > of_id) + (of_ood[:, None] == of_id) / 2 for of_id, of_ood in pairs]
    by_ood, by_id = np.array([w.mean(axis=1) for w in wins]), np.array([w.mean(axis=0) for w in wins])
    n_ood, n_id = wins[0].shape
    covariance = np.zeros((len(pairs), len(pairs)))
    for r, s in np.ndindex(covariance.shape):
        for group, n in ((by_ood, n_ood), (by_id, n_id)):
            a, b = group[r] - group[r].mean(), group[s] - group[s].mean()
            covariance[r, s] += sum(x * y for x, y in zip(a, b, strict=True)) / (n - 1) / n
    return covariance


def test_delongs_published_value():
    of_id, of_ood = np.array([1.0, 5, 4]), np.array([3.0, 5, 5, 9])
    value, influences = ood.STATISTICS["auroc"].value, ood.STATISTICS["auroc"].influences
    ranked = ood.SortedScores(of_id, of_ood)
    assert value(ranked) == 0.75
    variance = sum(one.var(ddof=1) / len(one) for one in influences(ranked))
    assert variance == pytest.approx(0.0416667, abs=1e-7)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_paired_delong_covariance_is_the_double_sum(n_id, n_ood, seed):
    rng = np.random.default_rng(seed)
    pairs = [(rng.integers(0, 4, n_id).astype(float), rng.integers(1, 6, n_ood).astype(float)) for _ in range(2)]
    (b_id, b_ood), (q_id, q_ood) = (ood.SortedScores(*pair).auroc_influence() for pair in pairs)
    expected = delong_by_brute_force(pairs)
    covariance = np.cov(b_id, q_id) / n_id + np.cov(b_ood, q_ood) / n_ood
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_separable_and_equal_scores():
    assert ood.SortedScores(np.array([0.0, 1.0]), np.array([2.0, 3.0])).auroc() == 1.0
    assert ood.SortedScores(np.array([0.0, 1.0]), np.array([2.0, 3.0])).fpr95("id") == 0.0
    assert ood.SortedScores(np.ones(4), np.ones(3)).auroc() == 0.5
    assert ood.SortedScores(np.ones(4), np.ones(3)).fpr95("id") == 1.0
    assert ood.SortedScores(np.array([0.0, 1.0]), np.array([2.0, 3.0])).fpr95("ood") == 0.0
    assert ood.SortedScores(np.ones(4), np.ones(3)).fpr95("ood") == 1.0
    assert ood.SortedScores(np.array([0.0, 1.0]), np.array([2.0, 3.0])).average_precision("id") == 1.0
    assert ood.SortedScores(np.array([0.0, 1.0]), np.array([2.0, 3.0])).average_precision("ood") == 1.0
    assert ood.SortedScores(np.ones(4), np.ones(3)).average_precision("id") == pytest.approx(4 / 7)
    assert ood.SortedScores(np.ones(4), np.ones(3)).average_precision("ood") == pytest.approx(3 / 7)
