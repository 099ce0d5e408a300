"""Compensated rounding, by brute force, and the order in which it goes through a model."""

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import Format
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


FORMATS = ("w2", "w4", "w4g16", "fp8w", "mxfp4w", "nvfp4w", "bf16w")


@pytest.mark.parametrize(
    ("bits", "parameters"),
    [
        *((bits, {}) for bits in FORMATS),
        ("w3", {"granularity": "tensor"}),
        ("w3", {"symmetric": False, "granularity": 8}),
        ("w3", {"restricted_range": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 3])
def test_a_row_never_errs_more_than_to_the_nearest_and_most_err_less_on_every_grid(ask, bits, parameters, groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, 3, groups=groups)
    weight, scheme = layer.weight.detach(), ask(Format.of(bits), **parameters).weight_scheme("any")
    rows = gptq.unfold_rows(layer, torch.randn(8, 6, 9, 9).cumsum(1))
    hessians = rows.transpose(1, 2) @ rows
    nearest = procedure.round_weight(weight, grid.minmax, scheme)
    found = gptq.compensate(weight, hessians, scheme, 0.01)
    again = procedure.round_weight(found, lambda values, scheme: grid.minmax(to_rows(weight, scheme), scheme), scheme)
    torch.testing.assert_close(found, again)  # it lies on the grids of the weight

    def errors(rounded):
        difference = (rounded - weight).reshape(groups, 12 // groups, -1).double()
        return ((difference @ hessians.double()) * difference).sum(-1).flatten()

    assert bool((errors(found) <= errors(nearest) * (1 + 1e-4)).all())
    assert float(errors(found).sum()) < 0.97 * float(errors(nearest).sum())


def to_rows(weight, scheme):
    return grid.to_rows(weight, scheme.granularity)


def test_it_is_the_optimal_greedy_update_by_brute_force(ask):
    """Each step against the closed form: round one weight, solve least squares for all that are left."""
    torch.manual_seed(0)
    x = torch.randn(200, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    hessian = x.T @ x
    weight = torch.randn(3, 6, dtype=torch.float64)
    scheme = ask(Format.of("w3"), restricted_range=True).weight_scheme("any")
    nearest = procedure.round_weight(weight, grid.minmax, scheme)
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
    out = gptq.compensate(weight, hessian[None], scheme, 1e-9)
    kept_nearest = (out == nearest).all(1)
    torch.testing.assert_close(out[~kept_nearest], expected[~kept_nearest])
    assert not bool(kept_nearest.all())


def test_many_inputs_are_rounded_as_one_after_the_other(ask, monkeypatch):
    torch.manual_seed(0)
    weight, x = torch.randn(5, 300), torch.randn(1000, 300).cumsum(1)
    scheme = ask(Format.of("w3")).weight_scheme("any")
    found = []
    for inputs in (1, 128):
        monkeypatch.setattr(gptq, "INPUTS", inputs)
        found.append(gptq.compensate(weight, (x.T @ x)[None], scheme, 0.01))
    assert float((found[0] != found[1]).float().mean()) < 0.02  # sums in another order end on the other side of a tie


@pytest.mark.parametrize(
    ("architecture", "bits"),
    [("vit", "w3"), ("vit", "w4a8"), ("coca", "w4a8"), ("resnet", "w3")],
    indirect=["architecture"],
)
def test_hessians_are_those_of_the_model_with_all_layers_before_quantized(architecture, ask, bits):
    """The oracle runs the whole model for every layer."""
    request = ask(Format.of(bits), quantizer="gptq")
    (clip, layers, request), (oracle, twins, _) = (
        engine_layers.prepare_layers(architecture, request) for _ in range(2)
    )
    order: list[str] = []
    handles = [
        twin.register_forward_pre_hook(lambda twin, args, name=name: order.append(name)) for name, twin in twins.items()
    ]
    engine_layers.encode_probes(oracle, "both")
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        gptq.round_weights(clip, layers, request)
        for name in dict.fromkeys(order):
            hessian = observers.observe(oracle, {name: twins[name]}, request, gptq.Hessian)[name].total
            weight = twins[name].weight
            weight.copy_(gptq.compensate(weight, hessian, request.weight_scheme(name), 0.01))
    for name in order:
        assert torch.equal(layers[name].weight, twins[name].weight), name


def test_it_errs_less_than_with_hessians_of_full_precision(tiny, ask, quantize, images):
    """The authors' order, against the one that knows nothing of the rounding before: by the last block's output."""
    request = ask(Format.of("w2"), quantizer="gptq")
    apart, layers, request = engine_layers.prepare_layers(tiny, request)
    with torch.no_grad():
        hessians = observers.observe(apart, layers, request, gptq.Hessian)
        for name, layer in layers.items():
            scheme = request.weight_scheme(name)
            layer.weight.copy_(gptq.compensate(layer.weight, hessians[name].total, scheme, 0.01))
    wanted, parallel, sequential, minmax = (
        features(clip, images)
        for clip in (tiny, apart, quantize(tiny, "gptq", request.bits), quantize(tiny, "minmax", request.bits))
    )
    errors = [float((found - wanted).square().mean()) for found in (sequential, parallel, minmax)]
    assert errors[0] < errors[1] < errors[2]


def features(clip, images):
    seen = []
    with clip.module.visual.transformer.resblocks[-1].register_forward_hook(lambda block, args, out: seen.append(out)):
        clip.encode_image(images)
    return seen[0]


def test_layers_that_calibration_does_not_reach_are_rounded_to_the_nearest(architecture_of, quantize):
    clip, bits = architecture_of("coca"), Format.of("w4")
    name = "text_decoder.resblocks.0.mlp.c_fc.weight"
    gptqs, plain = (quantize(clip, method, bits).module.state_dict()[name] for method in ("gptq", "minmax"))
    assert torch.equal(gptqs, plain)
