"""The search for AWQ's clipping, by brute force."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.config.formats import Format, integer
from pytest_qreliab.quantizers.engine import grid
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.grid import Block, Scheme
from pytest_qreliab.quantizers.post_training import clipping, procedure

LAYERS = {
    "linear": lambda: nn.Linear(24, 6, bias=False),
    "convolution": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
    "groups": lambda: nn.Conv2d(8, 6, 3, groups=2, bias=False),
}


def drawn(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind]().requires_grad_(False)
    layer.weight.copy_(torch.randn_like(layer.weight) ** 3)
    shape = (64, 24) if kind == "linear" else (3, layer.in_channels, 7, 7)
    return layer, torch.randn(shape) * torch.rand(shape[1]).view(-1, *[1] * (len(shape) - 2))


def output(layer, x, weight):
    return F.linear(x, weight) if isinstance(layer, nn.Linear) else layer._conv_forward(x, weight, None)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "tensor", 5, 12, Block(3)])
@pytest.mark.parametrize("kind", LAYERS)
def test_no_grid_errs_less_in_its_part_of_the_output_with_another_share(kind, granularity, symmetric):
    """Each grid's weights act alone: all others are zero."""
    layer, x = drawn(kind)
    scheme = Scheme(number=integer(3), granularity=granularity, symmetric=symmetric)
    rows = grid.to_rows(layer.weight, granularity)
    lowest, highest = clipping.least_output_error(layer, x)(rows, scheme)
    found = scheme.fit(lowest, highest).round(rows)
    for row in range(0, len(rows), 5):

        def error(values, row=row):
            off = torch.zeros_like(rows)
            off[row] = values - rows[row]
            return float(output(layer, x, grid.from_rows(off, layer.weight, granularity)).square().sum())

        bound = rows[row].abs().max()
        tried = []
        for share in (1 - k / 20 for k in range(10)):
            clipped = rows[row].clamp(-share * bound, share * bound)
            tried.append(error(scheme.fit_values(clipped[None], grid.minmax).round(clipped[None])[0]))
        assert error(found[row]) <= min(tried) * (1 + 1e-4) + 1e-9


def test_an_outlier_that_no_input_wakes_is_clipped_and_one_that_matters_is_kept():
    layer, x = drawn("linear")
    layer.weight.copy_(2 * torch.rand(6, 24) - 1)
    layer.weight[:, 3] = 2
    scheme = Scheme(number=integer(3))
    x[:, 3] = 0
    assert bool((clipping.least_output_error(layer, x)(layer.weight, scheme)[1] < 1.5).all())
    x[:, 3] = 10
    assert bool((clipping.least_output_error(layer, x)(layer.weight, scheme)[1] == 2).all())


def test_layers_of_attention_scores_and_those_that_nothing_reaches_keep_the_full_range(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "vision")
    layers["idle"] = nn.Linear(8, 4).requires_grad_(False)
    request = ask(Format.integers(2), "vision", "awq")
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    with torch.no_grad():
        clipping.clip_by_output(clip, layers, request)
    for name, layer in layers.items():
        nearest = procedure.round_weight(before[name], grid.minmax, request.weight_scheme(name))
        whole = name == "idle" or name.endswith((".q_proj", ".k_proj"))
        assert torch.equal(layer.weight, nearest) == whole, name


def test_nan_in_the_inputs_clips_nothing():
    layer, x = drawn("linear")
    x[3, 3] = torch.nan
    scheme = Scheme(number=integer(2))
    assert torch.equal(clipping.least_output_error(layer, x)(layer.weight, scheme)[1], layer.weight.amax(1, True))
