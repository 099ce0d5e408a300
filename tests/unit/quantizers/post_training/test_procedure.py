"""Every post-training method, through one procedure, on every architecture; then what is each one's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.quantizers.engine import grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.post_training import procedure, rotation, smoothing
from pytest_qreliab.quantizers.post_training.gptq import Hessian, unfolded

METHODS = ("minmax", "percentile", "mse", "smoothquant", "outlier-suppression", "quarot", "gptq", "awq")
OTHERS = [method for method in METHODS if method not in ("minmax", "gptq")]


@pytest.fixture(scope="module")
def images(tiny, calibration):
    return next(iter(calibration.batches(tiny, 6)))


@pytest.mark.parametrize(
    "method", ["minmax", "gptq", *(pytest.param(method, marks=pytest.mark.slow) for method in OTHERS)]
)
def test_every_architecture_is_covered_and_its_error_falls_as_bits_rise(architecture, quantize, error, method):
    check_coverage_and_errors(architecture, quantize, error, method)


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("architecture", ["vit", "convnext", "siglip-like"], indirect=True)
def test_every_method_covers_and_its_error_falls_as_bits_rise(architecture, quantize, error, method):
    check_coverage_and_errors(architecture, quantize, error, method)


def check_coverage_and_errors(architecture, quantize, error, method):
    errors = []
    for bits in (Bits(2), Bits(4), Bits(8), Bits(8, 8)):
        quantized = quantize(architecture, method, bits)
        found = coverage.measure(architecture, quantized, bits, "both")
        assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())
        errors.append(max(error(architecture, quantized)))
    two, four, eight, eight_eight = errors
    assert two > four > 4 * eight
    assert eight < 0.05
    assert eight_eight < 0.3  # random pools of attention are steep; the trained model below is held to less


@pytest.mark.parametrize("method", METHODS)
def test_the_trained_model_is_near_full_precision_at_eight_bits(tiny, images, quantize, error, method):
    assert max(error(quantize(tiny, method, Bits(8, 8)), tiny, images)) < 0.08
    assert max(error(quantize(tiny, method, Bits(8)), tiny, images)) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_scope_leaves_the_other_tower_bit_for_bit(tiny, images, quantize, method):
    texts = ["a handwritten two.", "9"]
    vision = quantize(tiny, method, Bits(3, 8), "vision")
    assert torch.equal(vision.encode_text(texts), tiny.encode_text(texts))
    assert not torch.equal(vision.encode_image(images), tiny.encode_image(images))
    text = quantize(tiny, method, Bits(3, 8), "text")
    assert torch.equal(text.encode_image(images), tiny.encode_image(images))
    assert not torch.equal(text.encode_text(texts), tiny.encode_text(texts))


@pytest.mark.parametrize("method", [*METHODS, "lowrank", "noise"])
def test_it_says_the_same_twice_and_does_not_touch_the_original(tiny, images, quantize, method):
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    bits = Bits(4, 8) if method in METHODS else Bits(4)
    first, second = (quantize(tiny, method, bits) for _ in range(2))
    assert torch.equal(first.encode_image(images), second.encode_image(images))
    assert all(torch.equal(value, before[name]) for name, value in tiny.module.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "parameters",
    [
        {"granularity": "tensor"},
        {"granularity": 12},
        {"symmetric": False},
        {"activations": "dynamic"},
        {"symmetric_activations": False, "symmetric": False, "granularity": 16},
    ],
    ids=str,
)
def test_granularity_symmetry_and_dynamic_ranges(tiny, images, quantize, error, method, parameters):
    quantized = quantize(tiny, method, Bits(8, 8), **parameters)
    granularity = parameters.get("granularity", "channel")
    found = coverage.measure(tiny, quantized, Bits(8, 8), "both", granularity)
    assert found.missing == ()
    assert max(error(quantized, tiny, images)) < 0.1
    if granularity == 12:  # groups have more values among them than one channel may have at few bits
        few = quantize(tiny, method, Bits(2), **parameters)
        assert coverage.measure(tiny, few, Bits(2), "both", 12).missing == ()
        assert coverage.measure(tiny, few, Bits(2), "both", "channel").weights < 0.5


def test_activation_bits_matter_by_themselves(tiny, images, quantize, error):
    few, many = (quantize(tiny, "minmax", Bits(8, bits)) for bits in (3, 8))
    assert error(few, tiny, images)[0] > 4 * error(many, tiny, images)[0]


def test_nan_in_a_weight_or_in_the_calibration_stays_to_be_seen(tiny, images, quantize):
    broken = tiny.copy()
    broken.module.visual.conv1.weight[0, 0, 0, 0] = torch.nan
    for method in METHODS:
        assert quantize(broken, method, Bits(4, 8)).encode_image(images).isnan().any(), method


def test_activations_without_calibration_are_refused(tiny, ask):
    recipe = Catalog().recipe("minmax")
    with pytest.raises(ValueError, match="needs calibration data"):
        recipe.apply()(tiny, ask(Bits(4, 8), data=None))


def test_bare_bits_mean_the_quantizers_default():
    recipe = Catalog().recipe
    assert recipe("minmax").bits(4, "both") == Bits(4, 8)
    assert recipe("minmax").bits(Bits(4), "both") == Bits(4)
    assert recipe("awq").bits(4, "both") == recipe("lowrank").bits(4, "both") == Bits(4)
    with pytest.raises(InputError, match="did you mean 'minmax'"):
        recipe("min-max")
    with pytest.raises(InputError, match=r"'lowrank' cannot do w4a8; it can do w2, .*, w8$"):
        recipe("lowrank").bits(Bits(4, 8), "both")


# What is each method's own


@pytest.mark.parametrize(
    ("method", "transforms", "parameters"),
    [
        ("smoothquant", smoothing._smoothquant, {}),
        ("smoothquant", smoothing._smoothquant, {"alpha": 0.9, "layers": "all"}),
        ("smoothquant", smoothing._smoothquant, {"alpha": "search"}),
        ("awq", smoothing._awq, {}),
        ("outlier-suppression", smoothing.migrate_norms, {}),
        ("quarot", rotation.rotate, {}),
        ("quarot", rotation.rotate, {"seed": 5}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_transformations_are_exact_before_rounding(architecture, ask, error, method, transforms, parameters):
    request = ask(Bits(4, 8), quantizer=method, **parameters)
    changed, layers = engine_layers.unpack_layers(architecture, "both")
    found = transforms(changed, layers, request)
    for name, by in found.items():
        input_quantizer.transform(layers[name], by)
    assert max(error(architecture, changed)) < 1e-4
    if architecture.name != "resnet" or parameters.get("layers") == "all" or method in ("quarot", "awq"):
        assert found


def test_rotation_changes_nothing_of_full_size_and_hides_an_outlier_channel(tiny, images, quantize, error):
    """An outlier in one channel costs minmax its activation range, and a rotation next to nothing."""
    spiked = tiny.copy()
    norm = spiked.module.visual.transformer.resblocks[0].ln_1
    norm.weight[3] *= 300  # undone in the weights that read it, so that the model is the same
    for part in spiked.module.visual.transformer.resblocks[0].attn.in_proj_weight.unbind():
        part[3] /= 300
    norm.bias[3] *= 300
    assert max(error(spiked, tiny, images)) < 1e-3
    plain = error(quantize(spiked, "minmax", Bits(8, 8)), tiny, images)[0]
    for method in ("smoothquant", "outlier-suppression", "quarot"):
        assert error(quantize(spiked, method, Bits(8, 8)), tiny, images)[0] < plain / 2, method


def test_smoothquants_scale_is_the_published_formula(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    request = ask(Bits(8, 8), quantizer="smoothquant", alpha=0.7)
    found = smoothing._smoothquant(clip, layers, request)
    block = "visual.transformer.resblocks.1"
    names = [f"{block}.attn.{which}_proj" for which in "qkv"]
    assert found[names[0]] is found[names[1]] is found[names[2]]
    seen = observers.observe(clip, layers, request, observers.MaxObserver)[names[0]].largest
    weight = torch.cat([layers[name].weight for name in names]).abs().amax(0)
    torch.testing.assert_close(found[names[0]].scale, seen**0.7 / weight**0.3)
    norm_fed = {name for name in layers if "attn.q" in name or "c_fc" in name} & found.keys()
    assert len(norm_fed) == 12
    assert f"{block}.mlp.c_proj" not in found


def test_searched_alpha_errs_no_more_than_any_fixed_one(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "vision")
    request = ask(Bits(4, 4), "vision", "smoothquant", alpha="search")
    inputs = observers.observe(clip, layers, request, observers.SampleObserver)
    name = "visual.transformer.resblocks.2.mlp.c_fc"

    def squared_error(alpha):
        by = smoothing._smoothquant(clip, layers, ask(Bits(4, 4), "vision", "smoothquant", alpha=alpha))[name]
        layer, x = layers[name], inputs[name].all()
        weight = procedure.round_weight(by.fold_weight(layer, layer.weight), grid.minmax, request)
        read = smoothing._round_input(by.input(layer, x), layer, request)
        return float((F.linear(read, weight) - F.linear(x, layer.weight)).square().sum())

    best = squared_error("search")
    assert all(best <= squared_error(alpha) * (1 + 1e-6) for alpha in (0.1, 0.3, 0.5, 0.7, 0.9))


def test_awq_keeps_the_channels_that_matter(ask, tiny):
    """With one loud channel among quiet ones, the loud one's weights are rounded finer."""
    torch.manual_seed(0)
    layer = nn.Linear(32, 16, bias=False).requires_grad_(False)
    x = torch.randn(256, 32)
    x[:, 5] *= 50
    request = ask(Bits(3), quantizer="awq")
    mean = x.abs().mean(0)
    tried = [smoothing.Transform(mean**e / ((mean**e).max() * (mean**e).min()).sqrt()) for e in (0.0, 0.5)]
    assert smoothing._best(tried, [(layer, x)], request) is tried[1]


# GPTQ


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
    rows = unfolded(layer, x)
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
    hessians = observers.observe(clip, layers, ask(Bits(bits)), Hessian)
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
    from pytest_qreliab.quantizers.post_training.gptq import _compensated

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
    out = _compensated(weight, nearest, hessian, request)
    kept_nearest = (out == nearest).all(1)
    torch.testing.assert_close(out[~kept_nearest], expected[~kept_nearest])
    assert not bool(kept_nearest.all())
