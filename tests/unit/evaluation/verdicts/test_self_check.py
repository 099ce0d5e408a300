"""The A/A self-check: pairs that do not differ, and how often gates fail them."""

from dataclasses import replace

import numpy as np
import pytest

from pytest_qreliab.evaluation.measurement.measure import values
from pytest_qreliab.evaluation.measurement.measurement import Measurement
from pytest_qreliab.evaluation.verdicts import self_check
from pytest_qreliab.metrics import classification


def measured(seed: int, n: int = 400, noise: float = 0.5, shift: float = 0.0) -> Measurement:
    """A model on the same samples as with any other seed, with noise of its own, and less sure by `shift`."""
    import torch

    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    labels = fixed.integers(0, 5, n)
    logits = fixed.normal(size=(n, 5)) + 2 * np.eye(5)[labels] + noise * rng.normal(size=(n, 5))
    outside = fixed.normal(size=300) + 1 + noise * rng.normal(size=300)
    inside = fixed.normal(size=n) + noise * rng.normal(size=n)
    measurement = Measurement(
        classes=tuple("abcde"),
        samples=n,
        predictions=classification.predict(torch.from_numpy((1 - shift) * logits), labels),
        id_scores={"mcm": inside},
        ood_scores={"mcm": {"letters": outside}},
        high_band=fixed.random(n) + 0.01 * rng.random(n),
    )
    measurement.values.update(values(measurement))
    return measurement


@pytest.fixture
def gates(make_gate):
    return [
        make_gate("accuracy", "max_drop"),
        make_gate("ece", "max_rise"),
        make_gate("confidence_gap", "max_change"),
        make_gate("ood.auroc", "max_drop"),
        make_gate("spectral.high_band_energy", "max_relative_change"),
    ]


@pytest.fixture
def check(monkeypatch, make_rule):
    """Checks gates on two models that differ by noise alone."""

    def check(gates, replicates=40, **settings):
        monkeypatch.setattr(self_check, "REPLICATES", replicates)
        done: list[int] = []
        rule = make_rule(error_probability=0.05 / len(gates), samples=400, **settings)
        checked = self_check.check("case", measured(1), measured(2), gates, rule, device="cpu", advance=done.append)
        assert sum(done) == replicates
        return checked

    return check


def test_dealt_sides_hold_the_same_samples_and_each_sample_has_both_outputs():
    baseline, quantized = measured(1), measured(2, shift=0.3)
    one, other = self_check.shuffle_pair(baseline, quantized, {"nll"}, np.random.default_rng(0))
    np.testing.assert_array_equal(one.predictions.labels, other.predictions.labels)
    together = np.sort(np.stack([one.predictions.nll, other.predictions.nll]), axis=0)
    pairs = np.sort(np.stack([baseline.predictions.nll, quantized.predictions.nll]), axis=0)
    assert {tuple(pair) for pair in together.T} <= {tuple(pair) for pair in pairs.T}
    # What belongs together stays together: the records of a sample come from one model.
    of_baseline = np.isin(one.predictions.nll, baseline.predictions.nll)
    np.testing.assert_array_equal(np.isin(one.predictions.confidence, baseline.predictions.confidence), of_baseline)
    assert 0.4 < of_baseline.mean() < 0.6


def test_neither_side_is_worse_on_average_even_if_the_quantized_model_is():
    baseline, worse = measured(1), measured(2, noise=2.0, shift=0.3)
    rng = np.random.default_rng(0)
    rises = []
    for _ in range(100):
        one, other = self_check.shuffle_pair(baseline, worse, {"nll"}, rng)
        rises.append(other.values["nll"] - one.values["nll"])
    assert worse.values["nll"] - baseline.values["nll"] > 0.2
    assert abs(np.mean(rises)) < 3 * np.std(rises) / 10


def test_wide_limits_pass_and_narrow_ones_that_the_estimate_decides_do_not(check, gates):
    wide = check([replace(gate, value=0.5) for gate in gates])
    assert wide.passed
    assert wide.failed == 0
    narrow = check([replace(gate, value=0.001) for gate in gates])
    assert not narrow.passed
    assert narrow.failed >= max(checked.false_failures * 40 for checked in narrow.gates)


def test_only_failures_beyond_the_limit_with_certainty_stay_below_what_confidence_allows(check, gates):
    """With a limit of nothing, where every estimate above it is harm, the intervals alone keep the rate."""
    checked = check([replace(gate, value=0.0) for gate in gates[:4]], replicates=150, inconclusive="pass")
    assert checked.passed
    assert checked.failed / 150 < 0.1


def test_a_harm_of_the_detectable_size_is_caught_in_four_cases_of_five(check, make_gate):
    """The score of every OOD sample is moved until the AUROC has lost what the self-check says it would see."""
    detectable = check([make_gate("ood.auroc", "max_drop", 0.0)], replicates=100).gates[0].detectable
    baseline, rng, caught = measured(1), np.random.default_rng(5), 0
    quantized = measured(2)
    for _ in range(100):
        one, other = self_check.shuffle_pair(baseline, quantized, {"ood.auroc.mcm"}, rng)
        moved = {"letters": other.ood_scores["mcm"]["letters"] - _move(one, detectable)}
        other = replace(other, values={}, ood_scores={"mcm": moved})
        other.values.update(values(other))
        change = self_check.compare(one, other, {"ood.auroc.mcm"})["ood.auroc.mcm"]
        caught += -change.bounds(0.05).high > 0
    assert 65 <= caught <= 93


def _move(measurement: Measurement, drop: float) -> float:
    """Return how far OOD scores must fall for the AUROC to lose `drop`."""
    from scipy.optimize import brentq

    from pytest_qreliab.metrics import ood

    inside, outside = measurement.id_scores["mcm"], measurement.ood_scores["mcm"]["letters"]
    start = ood.SortedScores(inside, outside).auroc()
    return brentq(lambda by: start - ood.SortedScores(inside, outside - by).auroc() - drop, 0, 5, xtol=1e-3)


def test_gates_that_are_no_tests_are_left_out_by_name(check, gates, make_gate):
    untested = [
        make_gate("ece", "max", 0.2),
        make_gate("kl", "max_rise", 0.1),
        make_gate("spectral.effective_rank", "max_change", 1),
    ]
    checked = check([gates[0], *untested], replicates=5)
    assert checked.left_out == ("ece", "kl", "spectral.effective_rank")
    assert [gate_check.gate for gate_check in checked.gates] == [gates[0]]


def test_the_self_check_is_repeatable(check, gates):
    assert check(gates, replicates=5) == check(gates, replicates=5)


@pytest.mark.parametrize(("failed", "passed"), [(0, True), (10, True), (16, True), (25, False), (200, False)])
def test_as_many_false_failures_as_chance_may_give_are_allowed(failed, passed):
    checked = self_check.SelfCheck(
        case="case",
        samples=100,
        device="cpu",
        replicates=200,
        failed=failed,
        allowed=0.05,
        gates=(),
        left_out=(),
    )
    assert checked.passed == passed


def test_sets_of_the_same_units_are_dealt_together():
    import torch

    logits, labels = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 3))), np.zeros(50, np.int64)
    predictions = classification.predict(logits, labels)
    names = ("spurious.common", "spurious.counter")
    pair = Measurement(
        classes=("a",),
        samples=50,
        labelled=dict.fromkeys(names, predictions),
        units=dict.fromkeys(names, np.arange(50)),
    )
    dealt = [
        self_check.shuffle_pair(measurement, measurement, [], np.random.default_rng(0))[0].labelled
        for measurement in (pair, replace(pair, units={}))
    ]
    together, apart = ([np.asarray(sets[name].logits) for name in names] for sets in dealt)
    assert np.array_equal(*together)
    assert not np.array_equal(*apart)
