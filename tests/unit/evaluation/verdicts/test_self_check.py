"""The A/A self-check: pairs that do not differ, and how often gates fail them."""

from dataclasses import replace

import numpy as np
import pytest

from pytest_qreliab.config.thresholds import Gate, Policy
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
    found = Measurement(
        tuple("abcde"),
        n,
        predictions=classification.predict(torch.from_numpy((1 - shift) * logits), labels),
        id_scores={"mcm": inside},
        ood_scores={"mcm": {"letters": outside}},
        high_band=fixed.random(n) + 0.01 * rng.random(n),
    )
    found.values.update(values(found))
    return found


def gate(metric: str, limit: str, value: float) -> Gate:
    return Gate(metric, limit, value, "t.yaml:1")


GATES = [
    gate("accuracy", "max_drop", 0.05),
    gate("ece", "max_rise", 0.05),
    gate("confidence_gap", "max_change", 0.05),
    gate("ood.auroc", "max_drop", 0.05),
    gate("spectral.high_band_energy", "max_relative_change", 0.05),
]


def check(gates, monkeypatch, replicates=40, policy=None, quantized=None):
    monkeypatch.setattr(self_check, "REPLICATES", replicates)
    policy = policy or Policy(version=1, gates={"nll": {"max_rise": 1}})
    done: list[int] = []
    found = self_check.check(
        "case", measured(1), quantized or measured(2), gates, 0.05 / len(gates), policy, "cpu", done.append
    )
    assert sum(done) == replicates
    return found


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


def test_wide_limits_pass_and_narrow_ones_that_the_estimate_decides_do_not(monkeypatch):
    wide = check([replace(found, value=0.5) for found in GATES], monkeypatch)
    assert wide.passed
    assert wide.failed == 0
    narrow = check([replace(found, value=0.001) for found in GATES], monkeypatch)
    assert not narrow.passed
    assert narrow.failed >= max(of.false_failures * 40 for of in narrow.gates)


def test_only_failures_beyond_the_limit_with_certainty_stay_below_what_confidence_allows(monkeypatch):
    """With a limit of nothing, where every estimate above it is harm, the intervals alone keep the rate."""
    policy = Policy(version=1, inconclusive="pass", gates={"nll": {"max_rise": 1}})
    found = check([replace(gate, value=0.0) for gate in GATES[:4]], monkeypatch, replicates=150, policy=policy)
    assert found.passed
    assert found.failed / 150 < 0.1


def test_a_harm_of_the_detectable_size_is_caught_in_four_cases_of_five(monkeypatch):
    """The score of every OOD sample is moved until the AUROC has lost what the self-check says it would see."""
    found = check([gate("ood.auroc", "max_drop", 0.0)], monkeypatch, replicates=100)
    detectable = found.gates[0].detectable
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


def _move(found: Measurement, drop: float) -> float:
    """How far OOD scores must fall for the AUROC to lose `drop`."""
    from scipy.optimize import brentq

    from pytest_qreliab.metrics import ood

    inside, outside = found.id_scores["mcm"], found.ood_scores["mcm"]["letters"]
    start = ood.SortedScores(inside, outside).auroc()
    return brentq(lambda by: start - ood.SortedScores(inside, outside - by).auroc() - drop, 0, 5, xtol=1e-3)


def test_gates_that_are_no_tests_are_left_out_by_name(monkeypatch):
    gates = [gate("ece", "max", 0.2), gate("kl", "max_rise", 0.1), gate("spectral.effective_rank", "max_change", 1)]
    found = check([GATES[0], *gates], monkeypatch, replicates=5)
    assert found.left_out == ("ece", "kl", "spectral.effective_rank")
    assert [of.gate for of in found.gates] == [GATES[0]]


def test_the_self_check_is_repeatable(monkeypatch):
    assert check(GATES, monkeypatch, replicates=5) == check(GATES, monkeypatch, replicates=5)


@pytest.mark.parametrize(("failed", "passed"), [(0, True), (10, True), (16, True), (25, False), (200, False)])
def test_as_many_false_failures_as_chance_may_give_are_allowed(failed, passed):
    found = self_check.SelfCheck("case", 100, "cpu", 200, failed, 0.05, (), ())
    assert found.passed == passed
