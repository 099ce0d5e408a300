import pytest
import torch
from torch import nn

from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine.grid import Grid
from pytest_qreliab.quantizers.training import parametrize
from pytest_qreliab.quantizers.training.learned import (
    ClippedWeight,
    LearnedRounding,
    LearnedTransform,
    LowRankWeight,
    Lsq,
    ShiftedBias,
    SoftRounding,
    staircase,
)


@pytest.mark.parametrize("shape", [(4, 9), (4, 3, 2, 2)])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_lsqs_gradients_are_the_papers(shape, bits, random):
    x, q, upstream = random(*shape), grid.levels(bits), random(*shape, seed=1)
    step = torch.tensor([0.1, 0.02, 0.5, 3.0]).view(-1, *(1,) * (len(shape) - 1)) * 3 / q
    x.requires_grad_()
    step.requires_grad_()
    (Lsq.apply(x, step, q) * upstream).sum().backward()
    for row in range(4):
        to_step = 0.0
        for value, gradient, to_x in zip(x[row].flatten(), upstream[row].flatten(), x.grad[row].flatten(), strict=True):
            units = float(value.detach() / step[row].detach())
            slope = round(units) - units if abs(units) <= q else q * (1 if units > 0 else -1)
            to_step += float(gradient) * slope
            assert to_x == (gradient if abs(units) <= q else 0)
        scale = 1 / (x[row].numel() * q) ** 0.5
        assert float(step.grad[row]) == pytest.approx(to_step * scale, rel=1e-4, abs=1e-6)


def test_lsqs_gradients_are_autograds_of_straight_through_rounding(random):
    x, step, q = random(6, 50).requires_grad_(), torch.full((), 0.3, requires_grad=True), 3
    gradients = torch.autograd.grad(Lsq.apply(x, step, q).sin().sum(), (x, step))
    units = (x / step).clamp(-q, q)
    expected = torch.autograd.grad(((units + (units.round() - units).detach()) * step).sin().sum(), (x, step))
    torch.testing.assert_close(gradients[0], expected[0])
    torch.testing.assert_close(gradients[1], expected[1] / (50 * q) ** 0.5)


def test_what_trains_is_what_is_baked(random):
    x = random(5, 7)
    rounding = LearnedRounding(torch.tensor(0.3), 4)
    nn.init.constant_(rounding.log_step, 2.0)
    assert float(rounding.grid().scale) == pytest.approx(0.3 * 2.718281828 ** (2 / 7))
    assert torch.equal(rounding(x), rounding.grid().round(x))


def test_the_staircase_keeps_integers_and_rounds_as_it_sharpens():
    units = torch.linspace(-3, 3, 601, dtype=torch.float64)
    away = (units.frac().abs() - 0.5).abs() > 0.05  # at a tie it has no limit
    errors = []
    for alpha in (0.5, 0.2, 0.05, 1e-3, 1e-12):
        soft = staircase(units, torch.tensor(alpha, dtype=torch.float64))
        errors.append(float((soft - units.round())[away].abs().max()))
        torch.testing.assert_close(soft[::100], units[::100].round())
        assert bool((soft.diff() > -1e-12).all())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_the_staircases_gradient_is_the_papers_and_that_of_finite_differences():
    units, alpha = torch.tensor([-1.7, 0.2, 0.4, 2.9], dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    assert torch.autograd.gradcheck(staircase, (units.requires_grad_(), alpha.requires_grad_()))
    (slope,) = torch.autograd.grad(staircase(units, alpha).sum(), units)
    k = (2 / alpha - 1).log()
    torch.testing.assert_close(slope, k / 2 / (1 - alpha) * (1 - (k * (units % 1 - 0.5)).tanh() ** 2))


def test_soft_rounding_rounds_hard_and_learns_step_and_sharpness(random):
    x, rounding = random(8, 9).requires_grad_(), SoftRounding(torch.tensor(0.4), 3)
    out = rounding(x)
    torch.testing.assert_close(out, Grid(torch.tensor(0.4), -3, 3).round(x.detach()))
    (out * random(8, 9, seed=1)).sum().backward()
    assert all(value.grad is not None and value.grad != 0 for value in rounding.parameters())
    assert bool((x.grad[x.abs() > 1.2] == 0).all())
    assert bool((x.grad[x.abs() < 1.2] != 0).all())


@pytest.mark.parametrize("bits", [2, 4])
def test_a_low_rank_change_of_zero_is_plain_rounding(bits, layer, full_range):
    weight, start = layer.weight.detach().clone(), full_range(layer) * 0.1
    by = LowRankWeight(LearnedRounding(start, bits), weight, 3, torch.Generator().manual_seed(0))
    parametrize.attach(layer, "weight", by, train=False)
    torch.testing.assert_close(layer.weight, Grid(start, -grid.levels(bits), grid.levels(bits)).round(weight))
    nn.init.constant_(by.right, 0.4)
    changed = (weight / start).flatten(1) + by.left.detach() @ by.right.detach()
    assert torch.linalg.matrix_rank(by.left @ by.right) == 1  # all of its rows are the same
    expected = Grid(torch.ones(()), -grid.levels(bits), grid.levels(bits)).round(changed).view(weight.shape) * start
    torch.testing.assert_close(layer.weight, expected)
    assert not layer.parametrizations.weight.original.requires_grad


def test_clipping_at_the_full_range_is_minmax(layer, full_range):
    rows = grid.to_rows(layer.weight.detach().clone(), "channel")
    expected = grid.fit_grid(*grid.minmax(rows, 4, True), 4, True).round(rows).view(layer.weight.shape)
    parametrize.attach(layer, "weight", ClippedWeight(layer, full_range(layer), 4), train=False)
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("layer", ["linear"], indirect=True)
def test_clipping_ends_at_its_share_and_a_channel_of_zeros_stays_zero(layer, full_range):
    with torch.no_grad():
        layer.weight[0] = 0
    largest = layer.weight.detach().abs().amax(1)
    parametrize.attach(layer, "weight", ClippedWeight(layer, full_range(layer) * 0.5, 8), train=False)
    torch.testing.assert_close(layer.weight.detach().abs().amax(1), largest / 2)
    assert not layer.weight[0].any()


def test_a_learned_transform_changes_nothing_before_rounding(layer, random, full_range):
    x = random(2, 12, 4, 4) if isinstance(layer, nn.Conv2d) else random(2, 5, 12)
    expected = layer(x)
    by = LearnedTransform(random(12).exp(), torch.full((12,), 0.1), 8, shift=True)
    nn.init.normal_(by.log_scale, std=20)
    nn.init.normal_(by.shift, std=5)
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros(6))
    input_quantizer.ensure_input_quantizer(layer).transform = by
    parametrize.attach(layer, "bias", ShiftedBias(layer, by), train=False)
    # A grid this fine rounds nothing.
    parametrize.attach(layer, "weight", ClippedWeight(layer, full_range(layer), 24, by), train=False)
    assert not torch.allclose(by.input(layer, x), x, atol=0.1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    layer(x).square().sum().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in by.parameters())
    parametrize.bake({"it": layer})
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
