"""The kinds of metrics of predictions: values, problems, and bounds of pairs."""

import numpy as np
import pytest
import torch

from pytest_qreliab.metrics import calibration
from pytest_qreliab.metrics.classification import predict
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.metrics.prediction_kinds import SampleMean, Selective
from pytest_qreliab.metrics.prediction_metrics import OWN, find
from pytest_qreliab.statistics.influence import paired_mean


def test_a_new_metric_is_one_entry_with_value_and_bounds(two_models):
    entropy = SampleMean(
        name="entropy",
        aspect="calibration",
        better="lower",
        header="entropy",
        help="mean entropy of the probabilities, nats",
        spread=0.1,
        samples=lambda p: -(p.log_probs().exp() * p.log_probs()).sum(dim=1).numpy(),
    )
    baseline, quantized = two_models()
    change = entropy.samples(quantized) - entropy.samples(baseline)
    assert entropy.value(quantized) - entropy.value(baseline) == pytest.approx(change.mean())
    bounds, method = entropy.bounds(baseline, quantized)
    assert (bounds(0.05), method) == (paired_mean(change, "any").pad().interval(0.05), "paired t")


def test_the_errors_of_one_table_are_drawn_once(monkeypatch, two_models):
    asked = []
    change_errors = calibration.change_errors
    monkeypatch.setattr(
        calibration,
        "change_errors",
        lambda b, q, names, bins: asked.append((*names, bins)) or change_errors(b, q, names, bins),
    )
    baseline, quantized = two_models()
    for name in ("ece", "ece.debiased", "ece.rms", "mce", "ece.classwise", "brier.resolution", "ece.20", "ece.rms.20"):
        metric = find(MetricName.parse(name))
        low, high = metric.bounds(baseline, quantized).bounds(0.05)
        assert low <= metric.value(quantized) - metric.value(baseline) <= high, name
    assert asked == [("ece", 15), ("ece.classwise", 15), ("ece", 20)]


FAILURE = [name for name, metric in OWN.items() if name.startswith("failure.")]


@pytest.mark.parametrize("name", FAILURE)
def test_failure_prediction_needs_errors_and_right_samples(name):
    logits, labels = torch.eye(4, dtype=torch.float64), np.arange(4)
    right, wrong, both = (predict(logits, labels[order]) for order in ([0, 1, 2, 3], [1, 2, 3, 0], [0, 1, 3, 2]))
    assert OWN[name].problem(right) == "no sample is classified wrongly"
    assert OWN[name].problem(wrong) == "no sample is classified rightly"
    assert OWN[name].problem(both) == ""
    for undefined in (right, wrong):
        assert np.isnan(OWN[name].value(undefined))
        assert np.isnan(OWN[name].bounds(both, undefined).bounds(0.05)).all()


def with_errors(count: int, n: int = 200):
    """Predictions of which so many are wrong, all of them less confident than those that are right."""
    logits = torch.zeros(n, 3, dtype=torch.float64)
    logits[:, 0] = torch.linspace(1, 4, n)
    return predict(logits, (np.arange(n) < count).astype(np.int64))


@pytest.mark.parametrize("name", FAILURE)
def test_failure_prediction_from_a_handful_of_errors_claims_nothing(name):
    few, enough = with_errors(4), with_errors(8)
    for pair in ((few, enough), (enough, few), (few, few)):
        bounds, method = OWN[name].bounds(*pair)
        assert bounds(0.01) == (-1, 1)
        assert method == "the whole range, as fewer than 5 samples are wrong, or right"
    # No error is misplaced: the rule of three goes by the 8 errors, not by the 200 samples.
    assert OWN[name].bounds(enough, enough).bounds(0.05).high == pytest.approx(-np.log(0.05) / 8)


@pytest.mark.parametrize("name", [name for name, metric in OWN.items() if isinstance(metric, Selective)])
def test_bounds_of_selective_metrics_hold_the_change_and_are_paired(name, two_models):
    baseline, quantized = two_models(400)
    low, high = OWN[name].bounds(baseline, quantized).bounds(0.05)
    assert low < OWN[name].value(quantized) - OWN[name].value(baseline) < high
    same = OWN[name].bounds(baseline, baseline).bounds(0.05)
    assert same.high - same.low < high - low
    fewest = int(baseline.correct.sum()) if name in FAILURE else 400
    assert same.high == pytest.approx(-np.log(0.05) / fewest)  # the rule of three
