"""OmniQuant's two changes of a layer, which change nothing until something is rounded."""

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import FLOATS, integer
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.training import parametrize
from pytest_qreliab.quantizers.training.clipping import ClippedWeight, LearnedTransform, ShiftedBias

WHOLE = 20.0  # a logit of almost 1


def scheme(bits, **more) -> Scheme:
    return Scheme(number=integer(bits), **more)


@pytest.mark.parametrize("laid", [scheme(4), scheme(3, symmetric=False), scheme(4, granularity=4)], ids=str)
def test_it_starts_at_the_range_of_least_squared_error(layer, laid):
    weight = layer.weight.detach().clone()
    rows = grid.to_rows(weight, laid.granularity)
    expected = grid.from_rows(laid.fit_values(rows, grid.mse).round(rows), weight, laid.granularity)
    parametrize.attach(layer, "weight", ClippedWeight(layer, laid), train=False)
    least, found = ((rounded - weight).square().sum() for rounded in (expected, layer.weight.detach()))
    assert float(found) <= 1.05 * float(least)  # a share of 1 is .999, which moves ties


@pytest.mark.parametrize("laid", [scheme(4), scheme(4, symmetric=False), Scheme(number=FLOATS["fp8"])], ids=str)
def test_clipping_at_the_full_range_is_minmax(layer, laid):
    rows = layer.weight.detach().flatten(1)
    expected = laid.fit_values(rows, grid.minmax).round(rows).view(layer.weight.shape)
    by = ClippedWeight(layer, laid)
    nn.init.constant_(by.start, WHOLE)
    parametrize.attach(layer, "weight", by, train=False)
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("layer", ["linear"], indirect=True)
def test_each_side_ends_at_its_own_share_and_a_channel_of_zeros_stays_zero(layer):
    with torch.no_grad():
        layer.weight[0] = 0
    low, high = layer.weight.detach().aminmax(dim=1)
    by = ClippedWeight(layer, scheme(8, symmetric=False))
    nn.init.constant_(by.start[0], torch.logit(torch.tensor(0.25)).item())
    nn.init.constant_(by.start[1], torch.logit(torch.tensor(0.5)).item())
    parametrize.attach(layer, "weight", by, train=False)
    step = (high / 2 - low / 4) / 255
    assert bool(((layer.weight.detach().amax(1) - high / 2).abs() <= step).all())
    assert bool(((layer.weight.detach().amin(1) - low / 4).abs() <= step).all())
    assert not layer.weight[0].any()


def test_gradients_to_the_ends_are_those_of_finite_differences():
    """Of weights far beyond the range, which lie on its ends and move with them."""
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-8.0, -7.9, 7.9, 8.0]]))
    by = ClippedWeight(layer, scheme(3, symmetric=False))
    nn.init.constant_(by.start, 0.0)  # half of the range

    def spread() -> torch.Tensor:
        rounded = by(layer.weight.detach())
        return rounded[0, -1] - rounded[0, 0]

    spread().backward()
    with torch.no_grad():
        before = spread()
        by.ends += 1e-3
        slope = (spread() - before) / 1e-3
    assert float(by.ends.grad.sum()) == pytest.approx(float(slope), rel=0.01)
    assert bool((by.ends.grad > 0).all())


def test_a_learned_transform_changes_nothing_before_rounding(layer, random):
    x = random(2, 12, 4, 4) if isinstance(layer, nn.Conv2d) else random(2, 5, 12)
    expected = layer(x)
    by = LearnedTransform(-random(12).exp(), random(12, seed=1).exp(), random(12).exp(), shift=True)
    nn.init.normal_(by.log_scale, std=0.5)
    nn.init.normal_(by.moved, std=0.5)
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros(6))
    input_quantizer.ensure_input_quantizer(layer).transform = by
    parametrize.attach(layer, "bias", ShiftedBias(layer, by), train=False)
    clipped = ClippedWeight(layer, scheme(24), by)  # a grid this fine rounds nothing
    nn.init.constant_(clipped.start, WHOLE)
    parametrize.attach(layer, "weight", clipped, train=False)
    assert not torch.allclose(by.input(layer, x), x, atol=0.1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    layer(x).square().sum().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in by.parameters())
    parametrize.bake({"it": layer})
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_shift_starts_at_the_middle_and_there_is_none_where_it_cannot_be():
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 8.0])
    by = LearnedTransform(low, high, torch.ones(2), shift=True)
    assert torch.equal(by.now().shift, torch.tensor([1.0, 5.0]))
    assert LearnedTransform(low, high, torch.ones(2), shift=False).now().shift is None
