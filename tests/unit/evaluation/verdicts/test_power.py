"""Gates that cannot show what they are for, found before anything has run."""

import numpy as np
import pytest

from pytest_qreliab.evaluation.verdicts.power import effective_samples, find_underpowered
from pytest_qreliab.metrics import registry, set_metrics
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.statistics import power


@pytest.fixture
def plan_of(make_plan, small_benchmark, write_thresholds):
    """Makes the plan of one case on 120 samples with some gates."""

    def make(gates: str, **more: str):
        thresholds = write_thresholds(gates, **more)
        return make_plan(bits="w8", benchmarks=str(small_benchmark), thresholds=str(thresholds))

    return make


def test_a_limit_that_the_samples_can_show_is_not_announced_and_one_that_they_cannot_is(plan_of):
    (weak,) = find_underpowered(plan_of("  accuracy: {max_drop: 0.02}\n  nll: {max_rise: 0.5}\n"))
    assert weak.gate.metric == "accuracy"
    assert weak.detectable > 0.02
    assert weak.times > 1


def test_so_many_samples_would_do(plan_of):
    plan = plan_of("  nll: {max_rise: 0.01}\n  accuracy: {max_drop: 0.02}\n")
    alpha = plan.error_probability(plan.cases[0])
    for weak in find_underpowered(plan):
        n = round(weak.times * 120)
        spread = registry.lookup(weak.gate.metric).spread
        if weak.gate.metric == "accuracy":
            assert power.minimum_detectable_drop(spread**2, n, alpha) <= 0.02
            assert power.minimum_detectable_drop(spread**2, n - 2, alpha) > 0.02
        else:
            assert power.minimum_detectable(spread, n, alpha) <= 0.01
            assert power.minimum_detectable(spread, n - 1, alpha) > 0.01


def test_a_limit_of_nothing_needs_endless_samples(plan_of):
    (weak,) = find_underpowered(plan_of("  ece: {max_rise: 0}\n"))
    assert weak.times == float("inf")


def test_limits_on_values_and_on_shares_of_a_value_yet_unknown_are_left_out(plan_of):
    assert not find_underpowered(
        plan_of("  ece: {max: 0.001}\n  spectral.high_band_energy: {max_relative_change: 0.001}\n")
    )


def test_a_small_grid_shows_less_than_a_large_one(make_plan, small_benchmark, write_thresholds, tmp_path):
    """Fifteen cells of the same images even out what one does not."""
    thresholds = write_thresholds("  corruption.accuracy: {max_drop: 0.001}\n")

    def detectable(kinds: str) -> float:
        path = tmp_path / f"{len(kinds)}.yaml"
        path.write_text(f"{small_benchmark.read_text()}corruptions: {{kinds: [{kinds}], severities: [3], limit: 50}}\n")
        (weak,) = find_underpowered(make_plan(bits="w8", benchmarks=str(path), thresholds=str(thresholds)))
        assert weak.samples == 50
        return weak.detectable

    one, four = detectable("fog"), detectable("fog, frost, snow, contrast")
    assert one == pytest.approx(power.minimum_detectable(0.32, 50, 0.05))
    name = MetricName.parse("corruption.accuracy")
    assert four / one == pytest.approx(set_metrics.spread_over(name, 4) / set_metrics.spread_over(name, 1))


def test_effective_samples_of_a_mean_over_sets_agree_with_a_simulation(plan_of):
    """The error of a difference of means, of ID samples and the average of two sets, all of the same spread."""
    data = plan_of("  nll: {max_rise: 1}\n").data["small"]
    sizes = [len(data.in_distribution), *(len(images) for images in data.ood.values())]
    rng = np.random.default_rng(0)
    inside, *sets = (rng.normal(size=(20_000, size)).mean(axis=1) for size in sizes)
    assert (inside - np.mean(sets, axis=0)).var() == pytest.approx(1 / effective_samples("ood.auroc", data), rel=0.03)
    name = next(iter(data.ood))
    alone = 1 / (1 / sizes[0] + 1 / sizes[1])
    assert effective_samples(f"ood.auroc.mcm.{name}", data) == pytest.approx(alone)
    assert effective_samples("ood.auroc.mcm.near", data) == pytest.approx(alone)
    assert effective_samples("recall.three", data) == (data.in_distribution.labels == 3).sum()
