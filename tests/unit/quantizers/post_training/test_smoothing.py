import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.engine import grid, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.post_training import procedure, smoothing


def test_smoothquants_scale_is_the_published_formula(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "both")
    request = ask(Format.integers(8, 8), quantizer="smoothquant", alpha=0.7)
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
    request = ask(Format.integers(4, 4), "vision", "smoothquant", alpha="search")
    inputs = observers.observe(clip, layers, request, observers.SampleObserver)
    name = "visual.transformer.resblocks.2.mlp.c_fc"

    def squared_error(alpha):
        by = smoothing._smoothquant(clip, layers, ask(Format.integers(4, 4), "vision", "smoothquant", alpha=alpha))[
            name
        ]
        layer, x = layers[name], inputs[name].all()
        weight = procedure.round_weight(by.fold_weight(layer, layer.weight), grid.minmax, request.weight_scheme(name))
        read = smoothing._round_input(by.input(layer, x), request.input_scheme(name), request)
        return float((F.linear(read, weight) - F.linear(x, layer.weight)).square().sum())

    best = squared_error("search")
    assert all(best <= squared_error(alpha) * (1 + 1e-6) for alpha in (0.1, 0.3, 0.5, 0.7, 0.9))


def test_awq_keeps_the_channels_that_matter(ask, tiny):
    """With one loud channel among quiet ones, the loud one's weights are rounded finer, on its authors' grids."""
    torch.manual_seed(0)
    layer = nn.Linear(32, 16, bias=False).requires_grad_(False)
    x = torch.randn(256, 32)
    x[:, 5] *= 50
    request = ask(Format.of("w3g32"), quantizer="awq")
    mean = x.abs().mean(0)
    tried = [Transform(mean**e / ((mean**e).max() * (mean**e).min()).sqrt()) for e in (0.0, 0.5)]
    assert smoothing._best(tried, {"it": (layer, x)}, request) is tried[1]
