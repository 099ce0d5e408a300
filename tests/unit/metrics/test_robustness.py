from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

from pytest_qreliab.metrics import registry, robustness
from pytest_qreliab.metrics.classification import predict
from pytest_qreliab.metrics.robustness import SpuriousAccuracies
from pytest_qreliab.statistics.influence import paired_mean

seeds = st.integers(0, 2**32 - 1)


def answers(seed: int, n: int = 30, m: int = 21):
    """Correctness of two models that agree mostly: baseline common, counter, quantized common, counter."""
    rng = np.random.default_rng(seed)
    common, counter = rng.random(n) < 0.8, rng.random(m) < 0.6
    return tuple(
        values.astype(float)
        for values in (common, counter, common ^ (rng.random(n) < 0.2), counter ^ (rng.random(m) < 0.2))
    )


def two_models(seed: int) -> tuple[SpuriousAccuracies, SpuriousAccuracies]:
    f_common, f_counter, q_common, q_counter = answers(seed)
    baseline = SpuriousAccuracies(paired_mean(f_common, "common"), paired_mean(f_counter, "counter"))
    return baseline, SpuriousAccuracies(paired_mean(q_common, "common"), paired_mean(q_counter, "counter"))


def estimates(f_common, f_counter, q_common, q_counter):
    """Each metric by the study's formula, from accuracies alone."""
    gap_f, gap_q = (f_common - f_counter) / f_common, (q_common - q_counter) / q_common
    return {
        "drop": (f_common - q_common) / f_common,
        "gap": gap_f,
        "rise": gap_q - gap_f,
        "vulnerability": (f_counter - q_counter) / f_counter - (f_common - q_common) / f_common,
    }


def ours(baseline: SpuriousAccuracies, quantized: SpuriousAccuracies):
    return {
        "drop": robustness.relative_drop(baseline.common, quantized.common),
        "gap": robustness.spurious_gap(baseline),
        "rise": robustness.spurious_gap_rise(baseline, quantized),
        "vulnerability": robustness.additional_vulnerability(baseline, quantized),
    }


@given(seeds)
def test_values_are_the_studys_formulas(seed):
    f_common, f_counter, q_common, q_counter = (values.mean() for values in answers(seed))
    assume(min(f_common, f_counter, q_common) > 0)
    expected = estimates(f_common, f_counter, q_common, q_counter)
    assert {name: e.value for name, e in ours(*two_models(seed)).items()} == pytest.approx(expected, abs=1e-12)


@given(seeds)
def test_vulnerability_is_the_rise_of_the_gap_rescaled(seed):
    baseline, quantized = two_models(seed)
    assume(min(baseline.common.value, baseline.counter.value, quantized.common.value) > 0)
    rise = robustness.spurious_gap_rise(baseline, quantized).value
    vulnerability = robustness.additional_vulnerability(baseline, quantized).value
    assert vulnerability == pytest.approx(rise * quantized.common.value / baseline.counter.value, abs=1e-12)


def test_worked_values():
    def of(hits: int, images: str):
        return paired_mean(np.arange(100) < hits, images)

    baseline, quantized = SpuriousAccuracies(of(80, "N"), of(60, "C")), SpuriousAccuracies(of(78, "N"), of(54, "C"))
    assert robustness.spurious_gap(baseline).value == pytest.approx(0.25)
    assert robustness.spurious_gap_rise(baseline, quantized).value == pytest.approx(24 / 78 - 0.25)
    assert robustness.additional_vulnerability(baseline, quantized).value == pytest.approx(0.1 - 0.025)


@given(seeds)
def test_influences_are_the_derivatives_with_respect_to_sample_weights(seed):
    samples = answers(seed)
    assume(all(values.any() for values in samples))

    def with_weights(weights):
        common, counter = weights
        return estimates(*(np.average(x, weights=w) for x, w in zip(samples, [common, counter] * 2, strict=True)))

    step = 1e-4
    for group, name_of_group in enumerate(("common", "counter")):
        n = len(samples[group])
        for i in (0, n // 2, n - 1):
            moved = []
            for sign in (1, -1):
                weights = [np.ones(30), np.ones(21)]
                # A share e of all weight on sample i, taken evenly from the others.
                weights[group] *= 1 - sign * step
                weights[group][i] += sign * step * n
                moved.append(with_weights(weights))
            for name, estimate in ours(*two_models(seed)).items():
                derivative = (moved[0][name] - moved[1][name]) / (2 * step)
                influence = estimate.influences.get(name_of_group, np.zeros(n))[i]
                assert influence == pytest.approx(derivative, abs=1e-4 * max(1, abs(derivative)))


def test_intervals_agree_with_the_bootstrap():
    samples = answers(3, n=900, m=700)
    f_common, f_counter, q_common, q_counter = samples
    baseline = SpuriousAccuracies(paired_mean(f_common, "common"), paired_mean(f_counter, "counter"))
    quantized = SpuriousAccuracies(paired_mean(q_common, "common"), paired_mean(q_counter, "counter"))
    rng = np.random.default_rng(0)
    i, j = rng.multinomial(900, np.full(900, 1 / 900), 4000), rng.multinomial(700, np.full(700, 1 / 700), 4000)
    replicates = estimates(i @ f_common / 900, j @ f_counter / 700, i @ q_common / 900, j @ q_counter / 700)
    for name, estimate in ours(baseline, quantized).items():
        low, high = estimate.interval(0.05)
        assert (high - low) / 2 == pytest.approx(norm.isf(0.05) * replicates[name].std(), rel=0.06), name


def test_over_an_accuracy_of_zero_all_is_nan():
    none, some = paired_mean(np.zeros(5), "N"), paired_mean(np.arange(5) < 2, "N")
    dead = SpuriousAccuracies(none, paired_mean(np.zeros(4), "C"))
    alive = SpuriousAccuracies(some, paired_mean(np.ones(4), "C"))
    for estimate in (
        robustness.relative_drop(none, some),
        robustness.relative_drop(none, none),
        robustness.spurious_gap(dead),
        robustness.spurious_gap_rise(alive, dead),
        robustness.additional_vulnerability(dead, alive),
    ):
        assert np.isnan([estimate.value, *estimate.interval(0.05)]).all()
    assert robustness.relative_drop(some, none).value == 1.0
    assert robustness.additional_vulnerability(alive, dead).value == 0.0


# On image sets


GRID = ("corruption.fog.1", "corruption.fog.3", "corruption.snow.3")
SHIFTED = ("shift.a", "shift.b")
SPURIOUS = ("spurious.common", "spurious.counter", "spurious.night")


def predictions(seed: int, n: int, noise: float):
    """Of four classes, the same samples for every noise, without their logits."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    logits = (
        np.eye(4)[labels] * 2 + rng.normal(size=(n, 4)) + noise * np.random.default_rng(seed + 1).normal(size=(n, 4))
    )
    return replace(predict(torch.from_numpy(logits), labels), logits=np.empty((n, 0), np.float32))


def sets(noise: float = 0.0, n: int = 200):
    found = {name: predictions(1, n, noise) for name in GRID[:2]}
    found[GRID[2]] = predictions(5, n, noise)
    found.update({name: predictions(10 + i, n + 40 * i, noise) for i, name in enumerate((*SHIFTED, *SPURIOUS))})
    return found


def test_values_are_means_over_the_sets_they_are_on():
    given = sets()
    values = robustness.values(given)
    of = {name: found.correct.mean() for name, found in given.items()}
    assert values["shift.accuracy"] == pytest.approx((of["shift.a"] + of["shift.b"]) / 2)
    assert values["shift.accuracy.b"] == of["shift.b"]
    assert values["shift.nll.a"] == pytest.approx(given["shift.a"].nll.mean())
    assert values["corruption.accuracy"] == pytest.approx(np.mean([of[name] for name in GRID]))
    assert values["corruption.accuracy.3"] == pytest.approx(np.mean([of[name] for name in GRID[1:]]))
    assert values["corruption.accuracy.fog"] == pytest.approx(np.mean([of[name] for name in GRID[:2]]))
    assert values["corruption.accuracy.fog.3"] == of["corruption.fog.3"]
    assert values["spurious.accuracy.night"] == of["spurious.night"]
    assert values["spurious.worst_group"] == min(of[name] for name in SPURIOUS)
    gap = (of["spurious.common"] - of["spurious.counter"]) / of["spurious.common"]
    assert values["spurious.gap"] == pytest.approx(gap)
    assert set(values) == set(robustness.names(given))
    assert all(registry.lookup(name).aspect == "robustness" for name in values)


def test_the_ece_of_a_set_is_that_of_its_predictions():
    given = sets()
    bins = np.ceil(given["shift.a"].confidence * 15)
    gaps = [abs((given["shift.a"].confidence - given["shift.a"].correct)[bins == b].sum()) for b in np.unique(bins)]
    assert robustness.values(given, ["shift.ece.a"])["shift.ece.a"] == pytest.approx(sum(gaps) / 200)


def test_groups_without_a_pair_have_no_gap():
    groups = {name: found for name, found in sets().items() if name in ("spurious.night", "spurious.common")}
    assert set(robustness.values(groups)) == {
        "spurious.accuracy.night",
        "spurious.accuracy.common",
        "spurious.worst_group",
    }
    assert robustness.vulnerability(groups, groups) is None


@pytest.mark.parametrize(
    "name",
    [
        *(f"{kind}.{statistic}" for kind in ("shift", "corruption") for statistic in ("accuracy", "nll", "ece")),
        *("shift.accuracy.a", "corruption.accuracy.fog.3", "corruption.nll.snow", "corruption.ece.3"),
        *("spurious.gap", "spurious.vulnerability", "spurious.worst_group", "spurious.accuracy.night"),
    ],
)
def test_intervals_hold_the_change_and_agree_with_the_bootstrap(name):
    before, after = sets(n=400), sets(0.7, n=400)
    on = registry.image_sets(name, before)

    def change(b, q) -> float:
        if name == robustness.VULNERABILITY:
            return robustness.vulnerability(b, q)
        return robustness.values(q, [name])[name] - robustness.values(b, [name])[name]

    bounds, method = robustness.bounds(name, before, after)
    low, high = bounds(0.05)
    assert low < change(before, after) < high
    assert method.startswith("paired")
    rng = np.random.default_rng(0)
    replicates = []
    for _ in range(300):
        drawn = {one: rng.integers(0, len(before[one]), len(before[one])) for one in on}
        if name.startswith("corruption"):  # the same images in every cell
            drawn = dict.fromkeys(on, drawn[on[0]])
        replicates.append(change(*({one: model[one].take(drawn[one]) for one in on} for model in (before, after))))
    expected = norm.isf(0.05) * np.std(replicates)
    # ECE is biased upwards in every replicate.
    assert (high - low) / 2 == pytest.approx(expected, rel=0.6 if "ece" in name else 0.16)


@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_the_error_of_a_grids_ece_is_what_other_images_would_show(shared):
    """Cells of the same images, which go wrong together or not: `shared` is the noise that an image takes along."""
    cells = [f"corruption.{kind}.3" for kind in ("fog", "snow", "frost", "contrast", "pixelate")]
    changes, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, models = 300, ({}, {})
        labels, along = rng.integers(0, 4, n), rng.normal(size=(n, 4))
        for name in cells:
            logits = 2 * np.eye(4)[labels] + rng.normal(size=(n, 4)) + shared * along
            for model, noise in zip(models, (0.0, 1.0), strict=True):
                model[name] = predict(torch.from_numpy(2 * (logits + noise * rng.normal(size=(n, 4)))), labels)
        before, after = (robustness.values(model, ["corruption.ece"])["corruption.ece"] for model in models)
        changes.append(after - before)
        low, high = robustness.bounds("corruption.ece", *models)[0](0.05)
        errors.append((high - low) / 2 / norm.isf(0.05))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(changes), rel=0.25)


@pytest.mark.parametrize("name", ["shift.accuracy", "corruption.nll", "spurious.gap", "spurious.vulnerability"])
def test_the_same_answers_change_nothing_and_are_not_certain(name):
    same = sets()
    low, high = robustness.bounds(name, same, same)[0](0.05)
    assert low < 0 < high
    assert high - low < 0.1


def test_one_sample_shows_nothing():
    one = {"shift.a": predictions(1, 1, 0.0)}
    assert robustness.bounds("shift.accuracy", one, one)[0](0.05) == (-np.inf, np.inf)
    assert robustness.values(one)["shift.accuracy"] in (0.0, 1.0)


def test_the_gap_takes_in_that_both_sets_show_the_same():
    """Common and counter images of the same things: what both models get wrong in both is no change of the gap."""
    rng = np.random.default_rng(0)
    labels, units = np.zeros(400, np.int64), np.arange(400)
    hard = rng.random(400) < 0.3  # the quantized model fails on these in both colours

    def predicted(wrong):
        return predict(torch.from_numpy(np.where(wrong[:, None], [0.0, 1.0], [1.0, 0.0])), labels)

    right = predicted(np.zeros(400, bool))
    before = {"spurious.common": right, "spurious.counter": right}
    after = {"spurious.common": predicted(hard), "spurious.counter": predicted(hard)}
    apart = robustness.bounds("spurious.gap", before, after)
    together = robustness.bounds("spurious.gap", before, after, dict.fromkeys(before, units))
    assert np.ptp(apart.bounds(0.05)) > 0.1
    assert np.ptp(together.bounds(0.05)) < 0.02
    assert together.method == "paired, images as clusters"
    order = rng.permutation(400)  # however the sets are sorted
    shuffled = {**after, "spurious.counter": after["spurious.counter"].take(order)}
    bounds = robustness.bounds("spurious.gap", before, shuffled, {"spurious.common": units, "spurious.counter": order})
    assert bounds.bounds(0.05) == pytest.approx(together.bounds(0.05))


def test_the_accuracy_on_repeated_units_has_the_interval_of_clusters():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), 5)
    wrong = (rng.random(60) < 0.2)[units]
    logits = torch.tensor([[1.0, 0.0]]).repeat(300, 1)
    before, labels = {"shift.a": predict(logits, np.zeros(300, np.int64))}, wrong.astype(np.int64)
    after = {"shift.a": predict(torch.from_numpy(np.eye(2)[labels]), np.zeros(300, np.int64))}
    each = robustness.bounds("shift.accuracy.a", before, after)
    clusters = robustness.bounds("shift.accuracy.a", before, after, {"shift.a": units})
    assert (each.method, clusters.method) == ("paired score", "paired, images as clusters")
    assert np.ptp(clusters.bounds(0.05)) > 1.7 * np.ptp(each.bounds(0.05))
