"""Migrated norms and clipped tokens, by brute force."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.config.formats import Format, integer
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.grid import Scheme
from pytest_qreliab.quantizers.post_training import outlier_suppression


def test_layers_that_read_a_norm_divide_by_its_weight_and_others_by_nothing(tiny, ask):
    clip, layers = engine_layers.unpack_layers(tiny, "vision")
    found = outlier_suppression.migrate_norms(clip, layers, ask(Format.integers(8, 8), "vision", "outlier-suppression"))
    for place, block in enumerate(clip.module.visual.transformer.resblocks):
        name = f"visual.transformer.resblocks.{place}"
        for reader, norm in (("attn.q_proj", block.ln_1), ("attn.v_proj", block.ln_1), ("mlp.c_fc", block.ln_2)):
            torch.testing.assert_close(found[f"{name}.{reader}"].scale, norm.weight)
        assert f"{name}.attn.out_proj" not in found
        assert f"{name}.mlp.c_proj" not in found
    assert "visual.conv1" not in found


def test_weights_near_zero_are_raised_to_a_thousandth_of_the_mean_and_keep_their_sign():
    scale = torch.tensor([4.0, -4.0, 0.0, 1e-9, -1e-9, -0.1])
    found = outlier_suppression._away_from_zero(scale)
    least = float(scale.abs().mean()) / 1000
    torch.testing.assert_close(found, torch.tensor([4.0, -4.0, least, least, -least, -0.1]))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 8])
def test_a_token_that_matters_to_no_output_is_given_up_and_the_output_is_better_for_it(bits, symmetric):
    torch.manual_seed(0)
    layer = nn.Linear(16, 8, bias=False).requires_grad_(False)
    layer.weight[:, 3] = 0
    x = torch.randn(64, 16)
    x[5, 3] = 500

    def error(of):
        return float((F.linear(of(x), layer.weight) - F.linear(x, layer.weight)).square().sum())

    scheme = Scheme(number=integer(bits), symmetric=symmetric)
    found = outlier_suppression._fit_clipped(layer, x, scheme)
    lows, highs = x.amin(1).sort(descending=True).values, x.amax(1).sort().values
    coarse = [
        error(scheme.fit(lows[last], highs[last]).round) for last in {round((1 - k / 40) * 63) for k in range(21)}
    ]
    assert error(found) <= min(coarse) * (1 + 1e-6)
    assert error(found) < 0.1 * error(scheme.fit(x.min(), x.max()).round)
