import copy

import torch
from torch import nn

from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.training import parametrize
from pytest_qreliab.quantizers.training.learned import LearnedRounding, RoundedWeight, Scaled


def test_baking_leaves_plain_layers_that_say_the_same(layer, random, full_range):
    original = copy.deepcopy(layer)
    x = random(2, 12, 4, 4) if isinstance(layer, nn.Conv2d) else random(5, 12)
    start = full_range(layer) * 0.1
    if layer.bias is not None:
        parametrize.attach(layer, "bias", Scaled(start.flatten()), train=True)
    parametrize.attach(layer, "weight", RoundedWeight(LearnedRounding(start, 3)), train=True)
    input_quantizer.ensure_input_quantizer(layer).round = LearnedRounding(torch.tensor(0.2), 4)
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
