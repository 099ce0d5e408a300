import pytest

from pytest_qreliab.metrics import calibration
from pytest_qreliab.metrics.binning import ClassBins, EqualMassBins, EqualWidthBins
from pytest_qreliab.metrics.names import MetricName
from pytest_qreliab.metrics.prediction_metrics import OWN, PAIRED, TABLE, Binned, PairMean, find


def test_every_metric_is_of_each_model_or_of_two_together():
    assert len(TABLE) == len(OWN) + len(PAIRED)
    assert all(metric.distance == isinstance(metric, PairMean) for metric in TABLE)


def test_the_binned_metrics_are_those_that_calibration_computes():
    assert {name for name, metric in OWN.items() if isinstance(metric, Binned)} == calibration.BINNED.keys()


@pytest.mark.parametrize("name", calibration.BINNED)
def test_a_number_of_bins_is_that_of_the_table(name, two_models):
    _, predictions = two_models()
    for bins in (1, 15, 30, 100):
        metric = find(MetricName.parse(f"{name}.{bins}"))
        (table,) = (
            table
            for table in (
                EqualWidthBins(predictions.confidence, predictions.correct, bins),
                EqualMassBins(predictions.confidence, predictions.correct, bins),
                ClassBins(predictions, bins),
            )
            if name in table.metrics_from_sums(table.sums())
        )
        assert metric.value(predictions) == pytest.approx(float(table.metrics_from_sums(table.sums())[name][0]))
        assert str(bins) in metric.help
    assert find(MetricName.parse(f"{name}.15")).value(predictions) == OWN[name].value(predictions)


@pytest.mark.parametrize(
    "name", ["ece.0", "ece.05", "ece.101", "ece.1000", "nll.15", "accuracy.10", "kl.10", "ece.rms.x"]
)
def test_what_has_no_such_bins(name):
    assert find(MetricName.parse(name)) is None


@pytest.mark.parametrize("name", PAIRED)
def test_two_equal_models_have_the_value_of_the_baseline(name, two_models):
    baseline, _ = two_models()
    assert PAIRED[name].samples(baseline, baseline).mean() == PAIRED[name].at_baseline
