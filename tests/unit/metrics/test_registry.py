import pytest

from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.definitions import ASPECTS


def test_every_name_is_looked_up_under_itself():
    for name in registry.names():
        assert registry.lookup(name).name == name
        assert registry.lookup(name).aspect in ASPECTS
        assert registry.lookup(name).header
        assert registry.lookup(name).help
    assert len(set(registry.names())) == len(registry.names())


def test_aspects_share_the_names_out():
    of_aspects = [name for aspect in ASPECTS for name in registry.of_aspect(aspect)]
    assert sorted(of_aspects) == sorted(registry.names())


def test_only_calibration_metrics_are_rescaled():
    rescaled = [name for name in registry.names() if name.startswith("rescaled.")]
    plain = [name for name in registry.of_aspect("calibration") if not name.startswith("rescaled.")]
    assert rescaled == ["rescaled." + name for name in plain]
    for name in rescaled:
        assert registry.lookup(name).aspect == "calibration"
        assert registry.lookup(name).better == registry.lookup(name.removeprefix("rescaled.")).better
        assert registry.lookup(name).needs == {"labels"}


@pytest.mark.parametrize("name", ["rescaled.accuracy", "rescaled.ood.auroc", "rescaled.rescaled.ece", "rescaled."])
def test_nothing_else_is(name):
    with pytest.raises(InputError, match="metric"):
        registry.lookup(name)


def test_all_but_the_largest_gap_an_angle_and_what_is_of_weights_have_an_interval():
    without = {name for name in registry.names() if registry.lookup(name).spread is None}
    of_weights = {name for name in registry.names() if "weights" in registry.lookup(name).needs}
    assert without == {"mce", "rescaled.mce", "spectral.principal_angle", *of_weights}
    assert len(of_weights) == 5


def test_spectral_metrics_may_be_of_one_block_or_of_other_features():
    assert registry.lookup("spectral.high_band_energy.3").needs == {"blocks"}
    assert registry.lookup("spectral.map_error.12").spread is None
    assert registry.lookup("spectral.sqnr_low_rank.penultimate").needs == {"penultimate"}
    assert registry.lookup("spectral.cka.text").spread is None
    assert "text features of the classes" in registry.lookup("spectral.effective_rank.text").help
    for name in ("spectral.high_band_energy.0", "spectral.cka.3", "spectral.accuracy_low_rank.text", "ece.text"):
        with pytest.raises(InputError, match="unknown metric"):
            registry.lookup(name)


def test_the_short_ood_name_is_the_primary_score():
    assert registry.canonical("ood.auroc") == "ood.auroc.mcm"
    assert registry.lookup("ood.auroc").needs == frozenset()
    for name in registry.names():
        assert registry.canonical(registry.canonical(name)) == registry.canonical(name)
        if not name.startswith("ood."):
            assert registry.canonical(name) == name


def test_names_with_a_set_a_group_or_a_class():
    assert registry.lookup("ood.fpr95.knn.near").needs == {"calibration"}
    assert registry.lookup("ood.aupr_in.gl-mcm.my-set").better == "higher"
    assert registry.lookup("recall.a.b").better == "higher"
    assert registry.canonical("recall.ood") == "recall.ood"


@pytest.mark.parametrize(
    "name", ["", "recall.", "ood", "ood.", "ood.auroc.", "ood.auroc.mcm.", "ood.auroc.mcn", "auroc", "Accuracy", "ece."]
)
def test_names_of_nothing(name):
    with pytest.raises(InputError, match="unknown metric"):
        registry.lookup(name)


@pytest.mark.parametrize(
    "name", ["ece.20", "ece.equal_mass.1", "ece.rms.100", "rescaled.ece.20", "brier.resolution.30"]
)
def test_a_metric_of_bins_may_have_another_number_of_them(name):
    metric, plain = registry.lookup(name), registry.lookup(name.rpartition(".")[0])
    assert (metric.name, registry.canonical(name)) == (name, name)
    assert (metric.aspect, metric.better, metric.needs) == (plain.aspect, plain.better, plain.needs)
    bins = name.rpartition(".")[2]
    assert metric.header == f"{plain.header} {bins} bins"
    assert f"{bins} " in metric.help
    assert "15" not in metric.help
    assert registry.image_sets(name, ["in_distribution", "shift.sketch"]) == ["in_distribution"]
    assert not registry.names_image_set(name)


@pytest.mark.parametrize(
    "name",
    ["ece.0", "ece.equal_mass.0", "ece.101", "ece.015", "ece.-5", "ece.1.5", "ece.rms.x", "nll.15", "accuracy.5"],
)
def test_a_wrong_number_of_bins_is_no_metric(name):
    with pytest.raises(InputError, match=r"unknown metric.*other bins: ece\.20"):
        registry.lookup(name)


def test_a_mistyped_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"ece\.debiased"):
        registry.lookup("ece.debiassed")


SETS = [
    "in_distribution",
    "shift.sketch",
    "corruption.fog.1",
    "corruption.fog.4",
    "corruption.snow.4",
    "spurious.counter",
    "spurious.common",
    "spurious.night",
    "ood.near.letters",
    "ood.far.photos",
]


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("accuracy", ["in_distribution"]),
        ("spectral.cka.text", ["in_distribution"]),
        ("shift.nll", ["shift.sketch"]),
        ("shift.nll.print", []),
        ("corruption.ece.4", ["corruption.fog.4", "corruption.snow.4"]),
        ("corruption.ece.fog", ["corruption.fog.1", "corruption.fog.4"]),
        ("corruption.ece.fog.4", ["corruption.fog.4"]),
        ("spurious.gap", ["spurious.common", "spurious.counter"]),
        ("spurious.worst_group", ["spurious.counter", "spurious.common", "spurious.night"]),
        ("spurious.accuracy.night", ["spurious.night"]),
        ("ood.auroc", ["ood.near.letters", "ood.far.photos"]),
        ("ood.auroc.knn.far", ["ood.far.photos"]),
        ("ood.auroc.knn.letters", ["ood.near.letters"]),
    ],
)
def test_image_sets_of_a_metric(name, sets):
    assert registry.image_sets(name, SETS) == sets


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("recall.dgo", ["cat", "a.dog"]),
        ("ood.auroc.mcm.lettres", ["near", "letters", "far", "photos"]),
        ("shift.nll.print", ["sketch"]),
        ("corruption.ece.fogg", ["fog", "1", "fog.1", "4", "fog.4", "snow", "snow.4"]),
        ("spurious.accuracy.night", ["counter", "common", "night"]),
        ("accuracy", []),
    ],
)
def test_the_parts_that_a_name_may_end_in_are_those_of_the_benchmark(name, parts):
    assert registry.parts(name, ["cat", "a.dog", "cat"], SETS) == parts
    for part in parts:
        whole = f"{name.rpartition('.')[0]}.{part}"
        assert registry.lookup(whole).name == whole
        assert registry.image_sets(whole, SETS)


def test_other_scores_are_of_the_same_statistic_and_set():
    others = registry.with_other_scores("ood.fpr95.knn.letters")
    assert set(others) == {f"ood.fpr95.{score}.letters" for score in registry.OOD_SCORES if score != "knn"}


def test_without_one_of_its_sets_there_is_no_gap():
    assert registry.image_sets("spurious.gap", [name for name in SETS if name != "spurious.common"]) == []


@pytest.mark.parametrize(
    ("name", "names_one"),
    [
        ("ood.auroc.mcm.letters", True),
        ("ood.auroc.mcm.near", False),
        ("shift.accuracy.sketch", True),
        ("corruption.nll.3", True),
        ("spurious.accuracy.night", True),
        ("spurious.accuracy.common", False),
        ("recall.cat", False),
        ("spectral.cka.text", False),
        ("ece.debiased", False),
    ],
)
def test_a_metric_on_an_image_set_of_the_benchmark_names_it(name, names_one):
    assert registry.names_image_set(name) == names_one
