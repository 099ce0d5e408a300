import numpy as np
import pytest
import torch

from pytest_qreliab.metrics import calibration
from pytest_qreliab.metrics.classification import predict
from pytest_qreliab.metrics.prediction_metrics import OWN, PAIRED, TABLE, Binned, PairMean, SampleMean
from pytest_qreliab.statistics.influence import paired_mean


def two_models(n: int = 60):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 4, n), rng.normal(size=(n, 4))
    return [predict(torch.from_numpy(logits + noise * rng.normal(size=(n, 4))), labels) for noise in (0.0, 1.0)]


def test_every_metric_is_of_each_model_or_of_two_together():
    assert len(TABLE) == len(OWN) + len(PAIRED)
    assert all(metric.distance == isinstance(metric, PairMean) for metric in TABLE)


def test_the_binned_metrics_are_those_that_calibration_computes():
    assert {name for name, metric in OWN.items() if isinstance(metric, Binned)} == calibration.BINNED.keys()


def test_a_new_metric_is_one_entry_with_value_and_bounds():
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


def test_the_errors_of_one_table_are_drawn_once(monkeypatch):
    asked = []
    change_errors = calibration.change_errors
    monkeypatch.setattr(
        calibration, "change_errors", lambda b, q, names: asked.append(names) or change_errors(b, q, names)
    )
    baseline, quantized = two_models()
    for name in ("ece", "ece.debiased", "mce", "ece.classwise", "brier.resolution"):
        low, high = OWN[name].bounds(baseline, quantized).bounds(0.05)
        assert low <= OWN[name].value(quantized) - OWN[name].value(baseline) <= high, name
    assert asked == [["ece"], ["ece.classwise"]]


@pytest.mark.parametrize("name", PAIRED)
def test_two_equal_models_have_the_value_of_the_baseline(name):
    baseline, _ = two_models()
    assert PAIRED[name].samples(baseline, baseline).mean() == PAIRED[name].at_baseline
