import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

from pytest_qreliab.metrics import robustness
from pytest_qreliab.metrics.robustness import Spurious, accuracy
from pytest_qreliab.statistics.influence import mean

seeds = st.integers(0, 2**32 - 1)


def answers(seed: int, n: int = 30, m: int = 21):
    """Correctness of two models that agree mostly: baseline common, counter, quantized common, counter."""
    rng = np.random.default_rng(seed)
    common, counter = rng.random(n) < 0.8, rng.random(m) < 0.6
    return tuple(
        values.astype(float)
        for values in (common, counter, common ^ (rng.random(n) < 0.2), counter ^ (rng.random(m) < 0.2))
    )


def two_models(seed: int) -> tuple[Spurious, Spurious]:
    f_common, f_counter, q_common, q_counter = answers(seed)
    baseline = Spurious(accuracy(f_common, "common"), accuracy(f_counter, "counter"))
    return baseline, Spurious(accuracy(q_common, "common"), accuracy(q_counter, "counter"))


def estimates(f_common, f_counter, q_common, q_counter):
    """Each metric by the study's formula, from accuracies alone."""
    gap_f, gap_q = (f_common - f_counter) / f_common, (q_common - q_counter) / q_common
    return {
        "drop": (f_common - q_common) / f_common,
        "shift": f_common - f_counter,
        "relative shift": gap_f,
        "rise": gap_q - gap_f,
        "vulnerability": (f_counter - q_counter) / f_counter - (f_common - q_common) / f_common,
    }


def ours(baseline: Spurious, quantized: Spurious):
    return {
        "drop": robustness.relative_drop(baseline.common, quantized.common),
        "shift": robustness.shift_drop(baseline.common, baseline.counter),
        "relative shift": robustness.relative_drop(baseline.common, baseline.counter),
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
        return accuracy(np.arange(100) < hits, images)

    baseline, quantized = Spurious(of(80, "N"), of(60, "C")), Spurious(of(78, "N"), of(54, "C"))
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
    baseline = Spurious(accuracy(f_common, "common"), accuracy(f_counter, "counter"))
    quantized = Spurious(accuracy(q_common, "common"), accuracy(q_counter, "counter"))
    rng = np.random.default_rng(0)
    i, j = rng.multinomial(900, np.full(900, 1 / 900), 4000), rng.multinomial(700, np.full(700, 1 / 700), 4000)
    replicates = estimates(i @ f_common / 900, j @ f_counter / 700, i @ q_common / 900, j @ q_counter / 700)
    for name, estimate in ours(baseline, quantized).items():
        low, high = estimate.interval(0.05)
        assert (high - low) / 2 == pytest.approx(norm.isf(0.05) * replicates[name].std(), rel=0.06), name


def test_corruptions_of_the_images_themselves_are_paired_with_them():
    """The same images clean and corrupted: what they share does not widen the interval of the drop."""
    rng = np.random.default_rng(0)
    clean = rng.random(200) < 0.7
    grid = clean & (rng.random((3, 5, 200)) < 0.9)
    paired = robustness.shift_drop(accuracy(clean, "ID"), robustness.corruption_accuracy(grid, "ID"))
    per_image = mean(clean - grid.mean(axis=(0, 1)), "ID")
    assert paired.interval(0.05) == pytest.approx(per_image.interval(0.05), abs=1e-12)
    apart = robustness.shift_drop(accuracy(clean, "ID"), robustness.corruption_accuracy(grid, "corrupted"))
    assert apart.value == paired.value
    assert np.ptp(apart.interval(0.05)) > 2 * np.ptp(paired.interval(0.05))


def test_corruption_cells():
    correct = np.zeros((2, 3, 4), dtype=bool)
    correct[0, 1], correct[1, 2, :3] = True, True
    np.testing.assert_array_equal(robustness.corruption_accuracies(correct), [[0, 1, 0], [0, 0, 0.75]])
    assert robustness.corruption_accuracy(correct, "ID").value == pytest.approx(1.75 / 6)


def test_over_an_accuracy_of_zero_all_is_nan():
    none, some = accuracy(np.zeros(5), "N"), accuracy(np.arange(5) < 2, "N")
    dead = Spurious(none, accuracy(np.zeros(4), "C"))
    alive = Spurious(some, accuracy(np.ones(4), "C"))
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


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 0), (0, 3, 5)])
def test_grids_that_cannot_be_used(shape):
    with pytest.raises(ValueError, match="shape must be at least"):
        robustness.corruption_accuracies(np.ones(shape))
    with pytest.raises(ValueError, match="shape must be at least"):
        robustness.corruption_accuracy(np.ones(shape), "ID")
    with pytest.raises(ValueError, match="NaN"):
        robustness.corruption_accuracy(np.full((2, 2, 2), np.nan), "ID")


# Groups


def test_worst_group():
    correct, groups = np.array([1, 1, 0, 1, 0, 0, 1.0]), np.array([7, 7, 7, 3, 3, 9, 9])
    assert robustness.worst_group(correct, groups) == (3, 0.5)
    assert robustness.worst_group_accuracy(correct, groups) == 0.5


@given(seeds, st.integers(1, 6))
def test_worst_group_by_brute_force_and_counts_equal_repeating_the_samples(seed, number):
    rng = np.random.default_rng(seed)
    correct, groups = rng.random(40) < 0.6, rng.integers(0, number, 40)
    accuracies = {group: correct[groups == group].mean() for group in np.unique(groups)}
    worst = robustness.worst_group(correct, groups)
    assert worst.accuracy == accuracies[worst.id] == min(accuracies.values())
    assert worst.accuracy <= correct.mean() + 1e-12
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=3)
    expected = [
        robustness.worst_group(np.repeat(correct, count), np.repeat(groups, count)).accuracy for count in counts
    ]
    np.testing.assert_allclose(robustness.worst_group_accuracy(correct, groups, counts), expected, atol=1e-12)


def test_groups_that_cannot_be_used():
    with pytest.raises(ValueError, match="groups of shape"):
        robustness.worst_group(np.ones(3), np.ones(4, dtype=int))
    with pytest.raises(ValueError, match="shape must be at least"):
        robustness.worst_group(np.ones(0), np.ones(0, dtype=int))
