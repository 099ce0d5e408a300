"""Paired bounds of each kind of metric, on measurements made by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, ttest_rel
from statsmodels.stats.proportion import proportion_confint

from pytest_qreliab.evaluation.measurement.comparison import compare
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.metrics import classification, ood, registry
from pytest_qreliab.metrics.ood import SortedScores
from pytest_qreliab.statistics import proportions
from pytest_qreliab.statistics.influence import paired_mean

NAMES = ("nll", "brier", "confidence_gap", "accuracy", "top5_accuracy", "balanced_accuracy", "aurc", "eaurc", "ece")
CLASSES = tuple("abcdefgh")


def of_logits(logits, labels) -> Measurement:
    """With those values that the bounds of these metrics ask for."""
    p = classification.predict(torch.from_numpy(logits), labels)
    values = {
        "nll": p.nll.mean(),
        "brier": p.brier.mean(),
        "confidence_gap": (p.confidence - p.correct).mean(),
        "accuracy": p.correct.mean(),
        "top5_accuracy": p.in_top5.mean(),
        "balanced_accuracy": classification.balanced_accuracy(p.correct, labels),
        "recall.a": p.correct[labels == 0].mean(),
    }
    rescaled = {f"rescaled.{name}": value for name, value in values.items() if name in registry.names()}
    found = {name: float(value) for name, value in {**values, **rescaled}.items()}
    return Measurement(classes=CLASSES, samples=len(labels), values=found, predictions=p, rescaled=p)


def two_models(n: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, n) - 1, 7)
    logits = 2 * rng.normal(size=(n, 8)) + 3 * np.eye(8)[labels]
    return of_logits(logits, labels), of_logits(logits + rng.normal(size=(n, 8)), labels)


def bounds(name: str, pair, alpha: float = 0.05):
    return compare(*pair, [name])[name].bounds(alpha)


def near_scipys(found, after, before) -> None:
    """As of scipy's paired t, but for the skewness and the padding, which count little at this n."""
    expected = ttest_rel(after, before).confidence_interval(0.9)
    assert found == pytest.approx(tuple(expected), abs=0.1 * (expected.high - expected.low))


@pytest.mark.parametrize("name", ["nll", "brier", "rescaled.nll", "rescaled.brier"])
def test_means_of_samples_have_the_padded_interval_of_their_differences(name):
    b, q = two_models()
    before, after = (getattr(m.predictions, name.removeprefix("rescaled.")) for m in (b, q))
    assert bounds(name, (b, q)) == paired_mean(after - before, "ID").pad().interval(0.05)
    near_scipys(bounds(name, (b, q)), after, before)


def test_the_confidence_gap_is_paired_in_both_of_its_parts():
    b, q = two_models()
    before, after = (m.predictions.confidence - m.predictions.correct for m in (b, q))
    near_scipys(bounds("confidence_gap", (b, q)), after, before)


def test_accuracies_have_tangos_interval():
    b, q = two_models()
    right, was = q.predictions, b.predictions
    for name, after, before in (
        ("accuracy", right.correct, was.correct),
        ("top5_accuracy", right.in_top5, was.in_top5),
        ("recall.a", right.correct[right.labels == 0], was.correct[was.labels == 0]),
    ):
        gained, lost = (after > before).sum(), (after < before).sum()
        assert bounds(name, (b, q)) == proportions.score_interval(gained, lost, len(after), 0.05), name


def test_the_method_of_accuracy_tells_the_exact_mcnemar_test():
    b, q = two_models()
    change = q.predictions.correct - b.predictions.correct
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    p = binomtest(gained, gained + lost).pvalue
    method = compare(b, q, ["accuracy"])["accuracy"].method
    assert method == f"paired score; McNemar p = {p:.2g}, {lost} lost, {gained} gained"


def test_balanced_accuracy_has_about_the_interval_of_independent_classes():
    """Tango's of the weighted changes, against the normal one with the variance of each class's recall."""
    b, q = two_models(4000)
    change, labels = q.predictions.correct - b.predictions.correct, b.predictions.labels
    variance = sum(change[labels == k].var() / (labels == k).sum() for k in range(8)) / 64
    low, high = bounds("balanced_accuracy", (b, q))
    assert (high - low) / 2 == pytest.approx(norm.isf(0.05) * variance**0.5, rel=0.1)


def test_shares_of_samples_have_statsmodels_wilson_interval():
    b, q = two_models()
    same = int((b.predictions.predicted == q.predictions.predicted).sum())
    low, high = proportion_confint(same, 400, alpha=0.1, method="wilson")
    assert bounds("agreement", (b, q)) == pytest.approx((low - 1, high - 1), abs=1e-12)
    lost = int((b.predictions.correct > q.predictions.correct).sum())
    assert bounds("flips.lost", (b, q)) == pytest.approx(
        proportion_confint(lost, 400, alpha=0.1, method="wilson"), abs=1e-12
    )


def test_metrics_of_two_models_are_perfect_in_the_baseline_itself():
    b, q = two_models()
    changes = compare(b, q, [])
    assert [changes[name].baseline for name in ("agreement", "flips.lost", "flips.gained", "kl")] == [1, 0, 0, 0]
    lost, gained = changes["flips.lost"].quantized, changes["flips.gained"].quantized
    assert changes["accuracy"].delta == pytest.approx(gained - lost, abs=1e-12)
    assert changes["agreement"].quantized <= 1 - lost - gained
    assert changes["kl"].quantized > 0


def test_identical_models_change_nothing(by_hand):
    changes = compare(by_hand.measured(), by_hand.measured(), by_hand.NAMES)
    assert all(change.delta == 0 for change in changes.values())
    for name in by_hand.NAMES:
        bounds = changes[name].bounds
        if bounds is not None:
            assert bounds(0.01).low <= 0 <= bounds(0.01).high, name
    found = by_hand.verdicts(by_hand.measured(), by_hand.measured(), value=0.5, inconclusive="fail")
    assert all(verdict.passed for verdict in found.values())


def test_bounds_hold_the_estimate_and_grow_with_confidence(by_hand):
    changes = compare(by_hand.measured(), by_hand.measured(noise=0.6, seed=1), by_hand.NAMES)
    for name in by_hand.NAMES:
        if registry.lookup(name).spread is None:
            assert changes[name].bounds is None
            continue
        wide, narrow = changes[name].bounds(0.001), changes[name].bounds(0.05)
        assert wide.low <= narrow.low <= changes[name].delta <= narrow.high <= wide.high, name
        assert wide.low < wide.high, name


def test_bounds_are_made_only_for_what_is_gated(by_hand):
    changes = compare(by_hand.measured(), by_hand.measured(), ["accuracy"])
    assert [name for name, change in changes.items() if change.bounds is not None] == ["accuracy"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(60)))
def test_the_order_of_samples_does_not_matter(seed, order):
    b, q = two_models(60, seed)
    shuffled = []
    for model in (b, q):
        p = model.predictions.take(np.array(order))
        shuffled.append(Measurement(classes=CLASSES, samples=60, values=model.values, predictions=p, rescaled=p))
    for name in b.values.keys() & set(registry.names()):
        assert bounds(name, shuffled) == pytest.approx(bounds(name, (b, q)), abs=1e-9), name


# OOD


def of_scores(of_id, sets) -> Measurement:
    found = Measurement(classes=(), samples=len(of_id), id_scores={"msp": of_id}, ood_scores={"msp": sets})
    for statistic, definition in ood.STATISTICS.items():
        each = {name: definition.value(found.ranked("msp", name)) for name in sets}
        found.values.update({f"ood.{statistic}.msp.{name}": value for name, value in each.items()})
        found.values[f"ood.{statistic}.msp"] = float(np.mean(list(each.values())))
    return found


def two_detectors(seed: int = 0, sizes=(900, 500, 700), noise: float = 0.5):
    """Measurements of correlated scores, on one ID and two OOD sets; the second model is worse."""
    rng = np.random.default_rng(seed)
    scores = [rng.normal(shift, 1, size) for shift, size in zip((0, 1, 2), sizes, strict=True)]
    noisy = [x + noise * rng.normal(size=len(x)) for x in scores]
    return [of_scores(x[0], {"letters": x[1], "photos": x[2]}) for x in (scores, noisy)]


def delong_variance(pair, sets) -> float:
    """Of the change of the mean AUROC over sets, from wins of every pair of samples: the ID samples are shared."""
    of_id, of_ood = np.zeros(pair[0].samples), []
    for name in sets:
        wins = []
        for m in pair:
            ids, others = m.id_scores["msp"], m.ood_scores["msp"][name]
            wins.append((others[:, None] > ids) + (others[:, None] == ids) / 2)
        change = (wins[1] - wins[0]) / len(sets)
        of_id += change.mean(axis=0)
        of_ood.append(change.mean(axis=1))
    return sum(part.var(ddof=1) / len(part) for part in (of_id, *of_ood))


@pytest.mark.parametrize("sets", [["letters"], ["photos"], ["letters", "photos"]])
def test_auroc_has_the_paired_delong_interval_and_a_mean_over_sets_shares_its_id_part(sets):
    pair = two_detectors()
    name = "ood.auroc.msp" + (f".{sets[0]}" if len(sets) == 1 else "")
    low, high = bounds(name, pair)
    half = norm.isf(0.05) * delong_variance(pair, sets) ** 0.5
    assert half < (high - low) / 2 < 1.06 * half  # the two samples more, and t, widen a little
    # Skewness moves both bounds a little.
    assert (high + low) / 2 == pytest.approx(pair[1].values[name] - pair[0].values[name], abs=0.02 * half)


@given(st.integers(0, 1000))
def test_the_variance_of_a_paired_auroc_is_the_double_sum_with_ties(seed):
    rng = np.random.default_rng(seed)
    draws = [[rng.integers(0, 4, size).astype(float) for size in (6, 9)] for _ in range(2)]
    pair = [of_scores(of_id, {"letters": of_ood}) for of_id, of_ood in draws]
    (b_id, b_ood), (q_id, q_ood) = (SortedScores(*draw).auroc_influence() for draw in draws)
    ours = (q_id - b_id).var(ddof=1) / 6 + (q_ood - b_ood).var(ddof=1) / 9
    assert ours == pytest.approx(delong_variance(pair, ["letters"]), abs=1e-12)


@pytest.mark.parametrize("statistic", registry.OOD_STATISTICS)
def test_ood_bounds_have_the_width_that_a_paired_bootstrap_shows(statistic):
    b, q = two_detectors(1, (2000, 1500, 1500))
    name, rng, shown = f"ood.{statistic}.msp.letters", np.random.default_rng(0), []
    function = ood.STATISTICS[statistic].value
    for _ in range(400):
        i, j = rng.integers(0, 2000, 2000), rng.integers(0, 1500, 1500)
        draws = (ood.SortedScores(m.id_scores["msp"][i], m.ood_scores["msp"]["letters"][j]) for m in (q, b))
        after, before = map(function, draws)
        shown.append(after - before)
    low, high = bounds(name, (b, q))
    # FPR@95 turns on a quantile, whose influence is measured more than known.
    assert (high - low) / 2 == pytest.approx(norm.isf(0.05) * np.std(shown), rel=0.3 if "fpr" in statistic else 0.1)


def test_models_that_score_alike_have_bounds_about_zero_by_the_rule_of_three():
    pair = two_detectors(noise=0.0)
    for statistic in registry.OOD_STATISTICS:
        low, high = bounds(f"ood.{statistic}.msp", pair)
        assert high == -low == pytest.approx(-np.log(0.05) / 500)
