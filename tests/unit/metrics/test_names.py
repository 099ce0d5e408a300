import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qreliab.metrics import registry
from pytest_qreliab.metrics.names import MetricName, SetName


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("accuracy", {"family": "prediction", "statistic": "accuracy"}),
        ("flips.lost", {"family": "prediction", "statistic": "flips.lost"}),
        ("rescaled.ece.debiased", {"family": "prediction", "statistic": "ece.debiased", "rescaled": True}),
        ("ece.20", {"family": "prediction", "statistic": "ece", "part": "20"}),
        (
            "rescaled.ece.rms.20",
            {"family": "prediction", "statistic": "ece.rms", "part": "20", "rescaled": True},
        ),
        ("recall.Dr. Who", {"family": "recall", "part": "Dr. Who"}),
        ("ood.auroc", {"family": "ood", "statistic": "auroc", "score": "mcm"}),
        ("ood.fpr95.knn.near", {"family": "ood", "statistic": "fpr95", "score": "knn", "part": "near"}),
        ("shift.nll.sketch", {"family": "shift", "statistic": "nll", "part": "sketch"}),
        ("corruption.ece.fog.3", {"family": "corruption", "statistic": "ece", "part": "fog.3"}),
        ("spurious.accuracy.night", {"family": "spurious", "statistic": "accuracy", "part": "night"}),
        ("spectral.sqnr_low_rank.text", {"family": "spectral", "statistic": "sqnr_low_rank", "part": "text"}),
    ],
)
def test_a_name_is_taken_apart(text, parts):
    assert MetricName.parse(text) == MetricName(**parts)


def test_every_name_in_full_is_put_together_again():
    for name in registry.names():
        assert str(MetricName.parse(name)) == registry.canonical(name)
        assert registry.canonical(registry.canonical(name)) == registry.canonical(name)


@given(st.text() | st.text(alphabet="ecrsald.019"))
def test_any_text_can_be_taken_apart_and_a_metric_of_predictions_put_together_again(text):
    name = MetricName.parse(text)
    assert name.family != "prediction" or str(name) == text
    SetName.parse(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("in_distribution", ("in_distribution", "", "")),
        ("ood.near.letters", ("ood", "near", "letters")),
        ("shift.sketch", ("shift", "", "sketch")),
        ("corruption.fog.3", ("corruption", "fog", "3")),
        ("spurious.common", ("spurious", "", "common")),
    ],
)
def test_the_name_of_an_image_set_is_taken_apart(text, parts):
    assert SetName.parse(text) == SetName(*parts)
