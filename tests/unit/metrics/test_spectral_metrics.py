from pytest_qreliab.metrics import spectral_metrics
from pytest_qreliab.metrics.definitions import RANK_BANDS
from pytest_qreliab.metrics.names import MetricName


def test_each_banded_metric_is_there_for_all_ranks_and_for_every_band():
    for stem in ("sqnr", "residual", "weight_error"):
        names = [f"spectral.{stem}", *(f"spectral.{stem}_{band}" for band in RANK_BANDS)]
        assert set(names) <= spectral_metrics.METRICS.keys()
        assert len({spectral_metrics.METRICS[name].header for name in names}) == 4


def test_only_what_two_models_can_differ_in_is_no_distance():
    own = {name.removeprefix("spectral.") for name, metric in spectral_metrics.METRICS.items() if not metric.distance}
    assert own == {
        "high_band_energy",
        "effective_rank",
        "stable_rank",
        "participation_ratio",
        "sensitivity_low",
        "sensitivity_mid",
        "sensitivity_high",
    }


def test_a_part_is_a_block_or_other_features():
    for name in ("high_band_energy.3", "map_error.12", "cka.text", "sqnr_low_rank.penultimate"):
        assert spectral_metrics.find(MetricName.parse(f"spectral.{name}")).name == f"spectral.{name}"
    for name in ("high_band_energy.0", "cka.3", "accuracy_low_rank.text", "weight_error.text", "nothing"):
        assert spectral_metrics.find(MetricName.parse(f"spectral.{name}")) is None
