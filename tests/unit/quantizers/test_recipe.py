from dataclasses import replace

import pytest

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.builtin import BUILTIN
from pytest_qreliab.quantizers.recipe import Recipe


def test_bare_bits_mean_the_quantizers_default():
    recipe = Catalog().recipe
    assert recipe("minmax").bits(4, "both") == Bits(4, 8)
    assert recipe("minmax").bits(Bits(4), "both") == Bits(4)
    assert recipe("awq").bits(4, "both") == recipe("lowrank").bits(4, "both") == Bits(4)
    with pytest.raises(InputError, match="did you mean 'minmax'"):
        recipe("min-max")
    with pytest.raises(InputError, match=r"'lowrank' cannot do w4a8; it can do w2, .*, w8$"):
        recipe("lowrank").bits(Bits(4, 8), "both")


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
