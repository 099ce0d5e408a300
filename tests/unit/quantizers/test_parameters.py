import pytest
from pydantic import ValidationError

from pytest_qreliab import Parameters
from pytest_qreliab.quantizers.parameters import Percentile, RoundingParameters, SmoothQuant, described


class Demanding(Parameters):
    strength: float


def test_parameters_are_described_with_default_and_type():
    assert described(SmoothQuant) == [
        "granularity=channel (tensor | channel | int at least 2)",
        "symmetric=True (bool)",
        "activations=static (static | dynamic)",
        "symmetric_activations=True (bool)",
        "images=128 (int at least 1)",
        "alpha=0.5 (float at least 0, at most 1 | search)",
        "layers=norm (norm | all)",
    ]
    assert described(Demanding) == ["strength (float)"]
    assert described(Parameters) == []


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Percentile, {"share": 50}),
        (Percentile, {"share": 100.5}),
        (SmoothQuant, {"alpha": 1.5}),
        (SmoothQuant, {"alpha": "find"}),
        (RoundingParameters, {"granularity": 1}),
        (RoundingParameters, {"granularity": "row"}),
        (RoundingParameters, {"images": 0}),
        (Parameters, {"strength": 1.0}),
        (Demanding, {}),
    ],
)
def test_values_out_of_bounds_and_unknown_names_are_refused(kind, given):
    with pytest.raises(ValidationError):
        kind.model_validate(given)


def test_the_bounds_themselves_are_taken():
    assert Percentile(share=100).share == 100
    assert [SmoothQuant(alpha=alpha).alpha for alpha in (0, 1, "search")] == [0, 1, "search"]
    assert RoundingParameters(granularity=2).granularity == 2
