import pytest
from pydantic import ValidationError

from pytest_qreliab import Parameters
from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.parameters import (
    Percentile,
    RoundingParameters,
    SmoothQuant,
    described,
    rounded_products,
)


class Demanding(Parameters):
    strength: float


def test_parameters_are_described_with_default_and_type():
    layers = "layers (mapping of layer names to formats or keep)"
    found = described(SmoothQuant)
    assert found[:5] == [
        layers,
        "granularity=channel (tensor | channel | int at least 2)",
        "symmetric=None (bool | none)",
        "restricted_range=False (bool)",
        "activations=static (static | dynamic)",
    ]
    assert found[-3:] == [
        "images=128 (int at least 1)",
        "alpha=0.5 (float at least 0, at most 1 | search)",
        "scaled=norm (norm | all)",
    ]
    assert described(Demanding) == [layers, "strength (float)"]
    assert described(Parameters) == [layers]


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
        (RoundingParameters, {"products": "int8"}),
        (RoundingParameters, {"products": ["query", "logits"]}),
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


@pytest.mark.parametrize(
    ("products", "kinds"),
    [
        ("float", set()),
        ([], set()),
        (["value", "softmax"], {"value", "softmax"}),
        ("integer", {"query", "key", "value", "softmax", "residual", "output"}),
    ],
)
def test_products_name_what_is_rounded_beside_the_inputs_of_layers(products, kinds):
    assert rounded_products(RoundingParameters(products=products), Format.of("w8a8")) == kinds


@pytest.mark.parametrize(
    ("bits", "why"), [("w4", "leaves activations as they are"), ("mxfp8", "rounds activations in blocks")]
)
def test_products_need_activations_that_share_a_grid(bits, why):
    assert rounded_products(RoundingParameters(), Format.of(bits)) == frozenset()
    with pytest.raises(InputError, match=f"products rounds activations to one grid, and {bits} {why}; write w8a8"):
        rounded_products(RoundingParameters(products=["query"]), Format.of(bits))


def test_a_list_of_words_is_described():
    (text,) = [text for text in described(RoundingParameters) if text.startswith("products")]
    assert text == "products=float (float | integer | list of query | key | value | softmax | residual | output)"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"visual.conv1": "w9"}, "9 bits in 'w9' is out of range"),
        ({"visual.conv1": "drop"}, "'drop' is no format.*; or write keep"),
        ({"visual.conv1": 4}, "'4' does not say of what; write w4"),
        ("norm", "give patterns of layer names with formats or keep.*is the parameter scaled"),
    ],
)
def test_formats_of_layers_are_checked(layers, message):
    with pytest.raises(ValidationError, match=message):
        SmoothQuant.model_validate({"layers": layers})
    assert SmoothQuant(layers={"a*": "W8A8", "b": "keep"}).layers == {"a*": "w8a8", "b": "keep"}
