from dataclasses import replace

import pytest

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.layout import PASS_CONTEXT
from pytest_qreliab.quantizers.builtin import BUILTIN
from pytest_qreliab.quantizers.recipe import Recipe


def test_bare_bits_mean_the_quantizers_default():
    recipe = Catalog().recipe
    assert recipe("minmax").bits(4, "both") == Format.integers(4, 8)
    assert recipe("minmax").bits(Format.integers(4), "both") == Format.integers(4)
    assert recipe("awq").bits(4, "both") == recipe("lowrank").bits(4, "both") == Format.integers(4)
    with pytest.raises(InputError, match="did you mean 'minmax'"):
        recipe("min-max")
    with pytest.raises(InputError, match=r"'lowrank' cannot do w4a8; it can do w2, .*, w8$"):
        recipe("lowrank").bits(Format.integers(4, 8), "both")


def test_a_bare_width_falls_back_to_weights_alone():
    backends = {q.name: q for q in BUILTIN if q.extra}
    found = {
        name: [str(Recipe(name=name, quantizer=quantizer).bits(width, "both")) for width in (4, 8)]
        for name, quantizer in backends.items()
        if name != "torchao-float8"
    }
    assert found == {"torchao": ["w4", "w8"], "bitsandbytes": ["w4", "w8a8"], "onnxruntime": ["w4", "w8a8"]}


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    catalog = Catalog()
    torchao = replace(catalog.quantizers["torchao"], packages=("no_such_package",))
    catalog.quantizers["torchao"] = torchao
    with pytest.raises(InputError, match=r"needs the package no_such_package: pip install 'pytest-qreliab\[torchao\]'"):
        catalog.recipe("torchao")


@pytest.mark.parametrize(
    ("name", "text", "nearest"),
    [
        ("dsq", "fp8", "w8a8"),
        ("lr-qat", "mxfp4w", "w4"),
        ("omniquant", "nvfp4", "w4a4"),
        ("dsq-8bit-ends", "bf16", "w8a8"),
    ],
)
def test_a_format_that_a_quantizer_cannot_round_to_names_the_nearest(name, text, nearest):
    with pytest.raises(
        InputError, match=rf"^quantizer '{name}' .*not to {text}; the nearest that it can do is {nearest}$"
    ):
        Catalog().recipe(name).bits(Format.of(text), "both")


@pytest.mark.parametrize("name", ["minmax", "mse", "gptq", "awq", "lsq", "smoothquant", "quarot"])
@pytest.mark.parametrize("text", ["w4g128", "fp8", "fp8w", "mxfp6", "nvfp4", "bf16"])
def test_formats_that_a_quantizer_can_round_to_are_taken(name, text):
    assert str(Catalog().recipe(name).bits(Format.of(text), "both")) == text


def test_the_data_that_a_format_needs_are_those_of_its_ranges():
    needs = Catalog().recipe("minmax").needs
    images = {
        text for text in ("w4", "w4a8", "fp16", "fp8", "fp8w", "mxfp4", "nvfp4") if needs(Format.of(text)) != "nothing"
    }
    assert images == {"w4a8", "fp8", "nvfp4"}


def test_one_bit_is_for_binary():
    with pytest.raises(
        InputError, match=r"'minmax' cannot do w1: 1 bit is for the quantizer 'binary'; write 2 or more"
    ):
        Catalog().recipe("minmax").bits(Format.integers(1), "both")


def test_groups_of_the_format_and_the_granularity_must_agree():
    catalog = Catalog()
    parameters = catalog.recipe("minmax").quantizer.parameters
    for granularity in ("channel", 128):
        recipe = replace(catalog.recipe("minmax"), parameters=parameters(granularity=granularity))
        assert recipe.bits(Format.of("w4g128"), "both").group == 128
    recipe = replace(catalog.recipe("minmax"), parameters=parameters(granularity=64))
    with pytest.raises(InputError, match="w4g128 has groups of 128, and 'minmax' a granularity of 64"):
        recipe.bits(Format.of("w4g128"), "both")


def test_products_are_rounded_whatever_the_method_and_refused_before_a_run(architecture_of, ask):
    for name in ("gptq", "lsq"):
        parameters = {"products": ["query", "key"], **({"steps": 1} if name == "lsq" else {})}
        request = ask(Format.of("w8a8"), "vision", name, **parameters)
        recipe = replace(Catalog().recipe(name), parameters=request.parameters)
        rounded = recipe.quantize(architecture_of("vit"), request)
        assert {site.kind for site in rounded.module.__dict__[PASS_CONTEXT].rounds} == {"query", "key"}
    with pytest.raises(InputError, match="w4 leaves activations as they are"):
        recipe.bits(Format.of("w4"), "both")
