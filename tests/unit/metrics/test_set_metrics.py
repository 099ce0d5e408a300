import pytest

from pytest_qreliab.metrics import prediction_metrics, set_metrics
from pytest_qreliab.metrics.names import MetricName


def test_every_statistic_has_the_spreads_of_every_category():
    for category in set_metrics.CATEGORIES.values():
        assert category.spreads.keys() == set_metrics.STATISTICS.keys()


def test_binned_statistics_are_metrics_of_predictions():
    binned = {name for name, statistic in set_metrics.STATISTICS.items() if statistic.samples is None}
    assert binned <= prediction_metrics.OWN.keys()


@pytest.mark.parametrize(
    ("name", "header", "spread"),
    [
        ("shift.nll", "shift NLL", 0.36),
        ("shift.accuracy.sketch", "shift accuracy sketch", 0.23),
        ("corruption.ece", "corruption ECE", 0.12),
        ("corruption.ece.fog.3", "corruption ECE fog 3", 0.5),
    ],
)
def test_a_mean_over_sets_and_one_set_have_spreads_of_their_own(name, header, spread):
    metric = set_metrics.find(MetricName.parse(name))
    assert (metric.name, metric.header, metric.spread) == (name, header, spread)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shift.accuracy", "accuracy under covariate shift, mean over the shifted sets"),
        ("shift.accuracy.sketch", "accuracy under covariate shift, on sketch"),
        ("shift.nll.sketch", "NLL under covariate shift, nats, on sketch"),
        ("corruption.ece", "ECE under corruption, mean over the grid"),
        ("corruption.ece.fog", "ECE under corruption, mean over severities of fog"),
        ("corruption.ece.3", "ECE under corruption, mean over kinds at severity 3"),
        ("corruption.ece.motion_blur.3", "ECE under corruption, of motion_blur at severity 3"),
    ],
)
def test_the_help_says_which_sets_are_meant(name, told):
    assert set_metrics.find(MetricName.parse(name)).help == told


def test_a_grid_evens_out_over_its_cells():
    name = MetricName.parse("corruption.accuracy")
    spreads = [set_metrics.spread_over(name, cells) for cells in range(1, 76)]
    assert spreads[0] == pytest.approx(0.32)
    assert spreads[14:] == pytest.approx([0.07] * 61)
    assert spreads == sorted(spreads, reverse=True)
    assert set_metrics.spread_over(MetricName.parse("corruption.accuracy.fog"), 4) == spreads[3]
    assert {set_metrics.spread_over(MetricName.parse("shift.nll"), sets) for sets in (1, 5)} == {0.36}


@pytest.mark.parametrize(
    "name",
    ["shift.brier", "shift.nll.a.b", "corruption.nll.6", "corruption.nll.3.fog", "corruption.nll.Fog", "shift"],
)
def test_what_is_no_set_and_no_cell_has_no_metric(name):
    assert set_metrics.find(MetricName(family="shift", statistic="")) is None
    assert name == "shift" or set_metrics.find(MetricName.parse(name)) is None


@pytest.mark.parametrize("name", ["spurious.accuracy", "spurious.gap.night", "spurious.nothing"])
def test_what_is_no_spurious_metric(name):
    assert set_metrics.find_spurious(MetricName.parse(name)) is None
