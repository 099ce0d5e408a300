import pytest
import torch
from torch import nn

from pytest_qreliab.quantizers.engine import input_quantizer
from pytest_qreliab.quantizers.engine.grid import Grid


def test_input_quantizer_rounds_what_the_layer_reads():
    layer = nn.Linear(3, 3, bias=False)
    layer.weight = nn.Parameter(torch.eye(3))
    hook = input_quantizer.ensure_input_quantizer(layer)
    assert input_quantizer.ensure_input_quantizer(layer) is hook
    hook.round = Grid(torch.tensor(0.25), -7, 7).round
    x = torch.tensor([[0.3, -9.0, 0.1]])
    assert layer(x).tolist() == [[0.25, -1.75, 0.0]]
    assert hook.called
    torch.testing.assert_close(x, torch.tensor([[0.3, -9.0, 0.1]]))
    expected = torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -7, 7)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_dynamic_ranges_are_each_tokens_or_each_images_own(symmetric):
    small, large = torch.randn(1, 1, 16), 100 * torch.randn(1, 1, 16)
    dynamic = input_quantizer.DynamicQuantizer(4, symmetric)
    together = dynamic(torch.cat([small, large], dim=1))
    torch.testing.assert_close(together[:, :1], dynamic(small))
    torch.testing.assert_close(together[:, 1:], dynamic(large))
    maps = torch.cat([torch.randn(1, 3, 4, 4), 100 * torch.randn(1, 3, 4, 4)])
    torch.testing.assert_close(dynamic(maps)[:1], dynamic(maps[:1]))
    assert all(len(image.unique()) <= 16 for image in dynamic(maps))
