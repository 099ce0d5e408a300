from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch

from pytest_qreliab.config.cases import ControlKind
from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers import controls
from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.parameters import Noise
from pytest_qreliab.quantizers.recipe import Quantizer


@pytest.mark.parametrize("control", ["lowrank", "noise"])
@pytest.mark.parametrize("bits", [Format.integers(2), Format.integers(4), Format.integers(8)])
def test_each_weight_errs_by_as_much_as_under_the_matched_quantizer(tiny, quantize, control, bits):
    disturbed, matched = quantize(tiny, control, bits), quantize(tiny, "minmax", bits)
    layers, there = engine_layers.unpack_layers(tiny, "both")[1], dict(matched.module.named_modules())
    for name, layer in layers.items():
        expected = (there[name].weight - layer.weight).norm()
        actual = (disturbed.module.get_submodule(name).weight - layer.weight).norm()
        assert float(actual) == pytest.approx(float(expected), rel=1e-3), name
    assert coverage.measure(tiny, disturbed, None, "both").weights == 1.0
    assert coverage.measure(tiny, tiny.copy(), None, "both").weights == 0.0


def test_the_weight_that_counts_is_the_one_before_a_transformation(tiny, ask):
    """Matched to quarot, whose stored weights are turned, the control errs as quarot's acting weights do."""
    catalog = Catalog()
    recipe = catalog.recipe("quarot")
    request = ask(Format.integers(3), quantizer="noise")
    disturbed = controls.noise(tiny, replace(request, matched=partial(recipe.quantize, request=request)))
    turned = dict(recipe.apply()(tiny, ask(Format.integers(3), quantizer="quarot")).module.named_modules())
    name = "visual.transformer.resblocks.0.mlp.c_fc"
    layer = engine_layers.unpack_layers(tiny, "both")[1][name]
    expected = (input_quantizer.effective_weight(turned[name]) - layer.weight).norm()
    assert not torch.allclose(turned[name].weight, input_quantizer.effective_weight(turned[name]), atol=1e-2)
    actual = (disturbed.module.get_submodule(name).weight - layer.weight).norm()
    assert float(actual) == pytest.approx(float(expected), rel=1e-3)


def test_low_rank_takes_the_least_singular_values():
    torch.manual_seed(0)
    weight = torch.randn(12, 8)
    quantized = weight + 0.3 * torch.randn(12, 8)
    cut = controls._filter(
        engine_layers.WeightPair(name="w", layer=torch.nn.Identity(), full=weight, quantized=quantized)
    )(1.0)
    before, after = torch.linalg.svdvals(weight), torch.linalg.svdvals(cut)
    kept = int((after > 1e-5).sum())
    assert kept < 8
    torch.testing.assert_close(after[: kept - 1], before[: kept - 1])
    assert float(after[kept - 1]) <= float(before[kept - 1])


def test_the_effective_rank_is_matched_where_it_falls():
    torch.manual_seed(0)
    weight = torch.randn(12, 8)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    quantized = (u * (s * torch.tensor([1, 1, 1, 0.5, 0.1, 0, 0, 0]))) @ vt
    wanted = controls.effective_rank(torch.linalg.svdvals(quantized))
    found = controls.effective_rank(torch.linalg.svdvals(controls._cut_to_rank(weight, quantized)))
    assert found == pytest.approx(wanted, rel=1e-4)
    assert controls._cut_to_rank(quantized, weight) is quantized


@pytest.mark.parametrize("kind", get_args(ControlKind))
@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_a_control_errs_by_any_multiple(tiny, quantize, kind, strength):
    quantized = quantize(tiny, "minmax", Format.integers(4))
    control = controls.Control(tiny, quantized, "vision", kind=kind).at(strength)
    before = engine_layers.unpack_layers(tiny, "both")[0].module
    for pair in engine_layers.weight_pairs(tiny, quantized, "vision")[1]:
        found, expected = (
            (of.get_submodule(pair.name).weight.flatten(1) - pair.full).norm()
            for of in (control.module, quantized.module)
        )
        assert float(found) == pytest.approx(strength * float(expected), rel=1e-3, abs=1e-5)
    for name, parameter in control.module.named_parameters():
        if not name.startswith("visual"):
            assert torch.equal(parameter, dict(tiny.module.named_parameters())[name])
    assert before is not control.module


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_effective_rank_of_equal_singular_values_is_their_number(rank):
    assert controls.effective_rank(torch.full((rank,), 2.5)) == pytest.approx(rank, rel=1e-5)
    assert controls.effective_rank(torch.zeros(rank)) == 0


def test_an_unknown_match_is_refused_at_once():
    class Typo(Noise):
        match: str = "min-max"

    catalog = Catalog()
    catalog.add_quantizer(Quantizer(name="typo", help="", function=controls.noise, parameters=Typo))
    with pytest.raises(InputError, match="did you mean 'minmax'"):
        catalog.recipe("typo")
