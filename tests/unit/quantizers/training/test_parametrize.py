import copy

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import FLOATS, integer
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine.grid import Block, Scheme
from pytest_qreliab.quantizers.training import parametrize
from pytest_qreliab.quantizers.training.learned import LearnedRounding, RoundedWeight, Scaled


@pytest.mark.parametrize("granularity", ["channel", 4])
def test_baking_leaves_plain_layers_that_say_the_same(layer, random, granularity):
    original = copy.deepcopy(layer)
    x = random(2, 12, 4, 4) if isinstance(layer, nn.Conv2d) else random(5, 12)
    scheme = Scheme(number=integer(3), granularity=granularity)
    rounding, unit = parametrize.first_rounding(layer.weight, scheme)
    if layer.bias is not None:
        parametrize.attach(layer, "bias", Scaled(unit.flatten(1).mean(1)), train=True)
    parametrize.attach(layer, "weight", RoundedWeight(rounding, unit, granularity), train=True)
    read = Scheme(number=integer(4)).fit(torch.tensor(-1.0), torch.tensor(1.4))
    input_quantizer.ensure_input_quantizer(layer).round = LearnedRounding(read)
    tensors = parametrize.trainable(nn.ModuleDict({"layer": layer}), {"layer": layer})
    assert len(tensors) == (4 if layer.bias is not None else 3)
    with torch.no_grad():
        for value in tensors.values():
            value.add_(0.1)
    expected = layer(x).detach()
    parametrize.bake({"layer": layer})
    assert type(layer) is type(original)
    assert layer.state_dict().keys() == original.state_dict().keys()
    assert not any(value.requires_grad for value in layer.parameters())
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("name", ["int4", "fp8", "mxfp6", "nvfp4", "bf16"])
def test_a_unit_of_a_weight_is_about_a_step_of_its_grid(name, random):
    """One rate of learning suits all of them. A block of zeros has the unit of the others."""
    number = FLOATS.get(name) or integer(4)
    scheme = Scheme(number=number, granularity=Block(number.block) if number.block else "channel")
    weight = random(4, 64) * 0.01
    weight[0] = 0
    rounding, unit = parametrize.first_rounding(weight, scheme)
    rows = grid.to_rows(weight, scheme.granularity)
    error = (rounding(rows) - rows)[rows.abs().amax(1) > 0].square().mean().sqrt() * 12**0.5  # of a uniform step
    assert 0.2 < float(error.detach() / unit[1:].mean()) < 5
    assert 0.5 < float(unit[0].mean() / unit[1:].mean()) < 2
