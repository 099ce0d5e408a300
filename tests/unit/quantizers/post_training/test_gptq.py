import pytest
import torch
from torch import nn

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.quantizers.engine import grid, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.post_training import gptq, procedure


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "more",
    [{"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}, {"padding": 1, "padding_mode": "circular"}, {}],
    ids=str,
)
def test_unfolded_rows_times_the_flat_weight_are_the_convolution(groups, more):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, groups=groups, bias=False, **more)
    x = torch.randn(2, 4, 7, 7)
    rows = gptq.unfold_rows(layer, x)
    weight = layer.weight.reshape(groups, 8 // groups, -1)
    by_group = (rows @ weight.transpose(1, 2)).reshape(groups, 2, -1, 8 // groups)
    expected = layer(x).flatten(2)  # (2, 8, places)
    torch.testing.assert_close(by_group.permute(1, 0, 3, 2).flatten(1, 2), expected)


@pytest.mark.parametrize(
    "parameters", [{}, {"granularity": 8}, {"granularity": "tensor"}, {"symmetric": False}], ids=str
)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq_never_errs_more_than_minmax_on_its_calibration_set_and_mostly_less(tiny, ask, quantize, bits, parameters):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    hessians = observers.observe(clip, layers, ask(Bits(bits)), gptq.Hessian)
    plain, better = (
        dict(quantize(tiny, method, Bits(bits), **parameters).module.named_modules()) for method in ("minmax", "gptq")
    )
    total = {"minmax": 0.0, "gptq": 0.0}
    for name, layer in layers.items():
        for method, modules in (("minmax", plain), ("gptq", better)):
            difference = (modules[name].weight - layer.weight).flatten(1).double()
            by_row = ((difference @ hessians[name].total[0].double()) * difference).sum(1)
            if method == "minmax":
                reference = by_row
            else:
                assert bool((by_row <= reference * (1 + 1e-4) + 1e-9).all())
            total[method] += float(by_row.sum())
    assert total["gptq"] < 0.6 * total["minmax"]


def test_gptq_is_the_optimal_greedy_update_by_brute_force(ask):
    """Each step against the closed form: round one weight, solve least squares for all that are left."""
    torch.manual_seed(0)
    x = torch.randn(200, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    hessian = x.T @ x
    weight = torch.randn(3, 6, dtype=torch.float64)
    request = ask(Bits(3), quantizer="gptq", damping=1e-9)
    nearest = procedure.round_weight(weight, grid.minmax, request)
    scale = weight.abs().amax(1) / 3
    order = hessian.diagonal().argsort(descending=True).tolist()
    left, expected = weight.clone(), torch.zeros_like(weight)
    for place, column in enumerate(order):
        rest = order[place + 1 :]
        expected[:, column] = (left[:, column] / scale).round().clamp(-3, 3) * scale
        if rest:
            error = left[:, [column]] - expected[:, [column]]
            update = torch.linalg.solve(hessian[rest][:, rest], hessian[rest][:, [column]] @ error.T).T
            left[:, rest] += update
    out = gptq._compensate(weight, nearest, hessian, request)
    kept_nearest = (out == nearest).all(1)
    torch.testing.assert_close(out[~kept_nearest], expected[~kept_nearest])
    assert not bool(kept_nearest.all())
