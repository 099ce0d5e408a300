import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import FLOATS, integer
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine.grid import Block, Grid, Scheme
from pytest_qreliab.quantizers.training import parametrize
from pytest_qreliab.quantizers.training.learned import (
    LearnedRounding,
    LowRankWeight,
    Lsq,
    SoftRounding,
    StraightThrough,
    highest,
    staircase,
)


def grid_of(step, bits, **more) -> Grid:
    """A grid of integers with a given step."""
    return Grid(torch.as_tensor(step), *Scheme(number=integer(bits), **more).levels(), integer(bits))


@pytest.mark.parametrize("shape", [(4, 9), (4, 3, 2, 2)])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_lsqs_gradients_are_the_papers(shape, bits, random):
    (low, q), x, upstream = Scheme(number=integer(bits)).levels(), random(*shape), random(*shape, seed=1)
    step = torch.tensor([0.1, 0.02, 0.5, 3.0]).view(-1, *(1,) * (len(shape) - 1)) * 3 / q
    x.requires_grad_()
    step.requires_grad_()
    (Lsq.apply(x, step, grid_of(1.0, bits)) * upstream).sum().backward()
    for row in range(4):
        to_step = 0.0
        for value, gradient, to_x in zip(x[row].flatten(), upstream[row].flatten(), x.grad[row].flatten(), strict=True):
            units = float(value.detach() / step[row].detach())
            inside = low <= units <= q
            to_step += float(gradient) * (round(units) - units if inside else q if units > 0 else low)
            assert to_x == (gradient if inside else 0)
        scale = 1 / (x[row].numel() * q) ** 0.5
        assert float(step.grad[row]) == pytest.approx(to_step * scale, rel=1e-4, abs=1e-6)


def test_lsqs_gradients_are_autograds_of_straight_through_rounding(random):
    """Those of an fp8 grid too, the levels of which are no multiples of one step."""
    for start, size in ((grid_of(1.0, 3), 0.3), (Grid(torch.ones(()), -448.0, 448.0, FLOATS["fp8"]), 0.003)):
        x, step = random(6, 50).requires_grad_(), torch.full((), size, requires_grad=True)
        gradients = torch.autograd.grad(Lsq.apply(x, step, start).sin().sum(), (x, step))
        units = (x / step).clamp(start.low, start.high)
        levels = start.to_units(units.detach().clone())
        expected = torch.autograd.grad(((units + (levels - units).detach()) * step).sin().sum(), (x, step))
        torch.testing.assert_close(gradients[0], expected[0])
        torch.testing.assert_close(gradients[1], expected[1] / (50 * highest(start)) ** 0.5)


def test_what_trains_is_what_is_baked(random):
    x = random(5, 7)
    rounding = LearnedRounding(grid_of(0.3, 4))
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
    x, rounding = random(8, 9).requires_grad_(), SoftRounding(grid_of(0.4, 3, restricted_range=True))
    out = rounding(x)
    torch.testing.assert_close(out, grid_of(0.4, 3, restricted_range=True).round(x.detach()))
    (out * random(8, 9, seed=1)).sum().backward()
    assert all(value.grad is not None and value.grad != 0 for value in rounding.parameters())
    assert bool((x.grad[x.abs() > 1.2] == 0).all())
    assert bool((x.grad[x.abs() < 1.2] != 0).all())


@pytest.mark.parametrize("scheme", [{"number": integer(3)}, {"number": integer(3), "symmetric": False}], ids=str)
def test_soft_rounding_and_lsq_round_alike_whatever_the_grid(scheme, random):
    x = random(6, 40)
    start = Scheme(**scheme).fit_values(x, grid.mse)
    for rounding in (SoftRounding(start), LearnedRounding(start)):
        torch.testing.assert_close(rounding(x), start.round(x))
        rounding(x).square().sum().backward()
        assert bool((rounding.log_step.grad != 0).all())


@pytest.mark.parametrize("granularity", ["tensor", "channel", 4])
@pytest.mark.parametrize("bits", [2, 4])
def test_a_low_rank_change_of_zero_is_plain_rounding(bits, granularity, layer):
    """The change is alpha / rank A B, in steps."""
    weight, scheme = layer.weight.detach().clone(), Scheme(number=integer(bits), granularity=granularity)
    rounding, step = parametrize.first_rounding(weight, scheme)
    generator = torch.Generator().manual_seed(0)
    by = LowRankWeight(rounding, step, granularity, rank=3, alpha=6.0, generator=generator)
    parametrize.attach(layer, "weight", by, train=False)

    def rounded(values):
        rows = grid.to_rows(values, granularity)
        return grid.from_rows(rounding.grid().round(rows), values, granularity)

    torch.testing.assert_close(layer.weight, rounded(weight))
    nn.init.normal_(by.left, generator=generator)
    change = by.left.detach() @ by.right.detach()
    assert torch.linalg.matrix_rank(change) == 3
    torch.testing.assert_close(layer.weight, rounded(weight + 6 / 3 * change.view(weight.shape) * step))
    assert not layer.parametrizations.weight.original.requires_grad


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "bf16"])
def test_gradients_pass_straight_through_scales_that_follow_from_the_values(name, random):
    number = FLOATS[name]
    scheme = Scheme(number=number, granularity=Block(number.block or 8))
    weight = random(4, 70).requires_grad_()
    rows = grid.to_rows(weight, scheme.granularity)
    rounding = StraightThrough(lambda values: scheme.fit_values(values, grid.minmax).round(values))
    assert torch.equal(rounding(rows), scheme.fit_values(rows, grid.minmax).round(rows.detach()))
    upstream = random(*rows.shape, seed=1)
    (rounding(rows) * upstream).sum().backward()
    assert torch.equal(weight.grad, grid.from_rows(upstream, weight, scheme.granularity))
