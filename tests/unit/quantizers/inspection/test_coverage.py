import pytest
import torch

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.inspection import coverage


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
@pytest.mark.parametrize("bits", [Bits(8), Bits(2), Bits(4, 8)])
def test_minmax_covers_every_matrix(tiny, quantize, scope, bits):
    quantized = quantize(tiny, "minmax", bits, scope)
    found = coverage.measure(tiny, quantized, bits, scope)
    assert (found.weights, found.flops, found.missing) == (1.0, 1.0, ())
    quantized_names = [n for n, p in quantized.module.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    total = sum(quantized.module.get_parameter(n).numel() for n in quantized_names if tiny.in_scope(n, scope))
    assert found.total_weights == total


def test_a_quantizer_that_swaps_linears_only_is_found_out(tiny):
    """What most libraries do to open_clip: the packed projections stay in full precision, unnoticed."""
    naive = tiny.copy()
    for module in naive.module.modules():
        if isinstance(module, torch.nn.Linear):
            lowest, highest = grid.minmax(module.weight, 4, True)
            module.weight.copy_(grid.fit_grid(lowest, highest, 4, True).round(module.weight))
            input_quantizer.ensure_input_quantizer(module).round = grid.Grid(torch.tensor(0.1), -127, 127).round
    weights = coverage.measure(tiny, naive, Bits(4), "both")
    assert 0.5 < weights.weights < 0.8
    assert "visual.transformer.resblocks.0.attn.in_proj_weight" in weights.missing
    assert "visual.conv1.weight" in weights.missing
    # out_proj's weight is rounded, but its forward is never called: its input is not.
    both = coverage.measure(tiny, naive, Bits(4, 8), "both")
    assert both.weights < weights.weights
    assert "visual.transformer.resblocks.0.attn.out_proj.weight" in both.missing
    with pytest.raises(InputError, match=r"covers .*left in full precision: .*in_proj_weight"):
        weights.require(1.0, "naive w4")


def test_an_unquantized_model_covers_nothing(tiny):
    found = coverage.measure(tiny, tiny.copy(), Bits(8), "both")
    assert (found.weights, found.flops) == (0.0, 0.0)


def test_a_hook_that_does_not_round_is_no_quantized_activation(tiny, quantize):
    quantized = quantize(tiny, "quarot", Bits(8))
    assert coverage.measure(tiny, quantized, Bits(8), "both").weights == 1.0
    assert coverage.measure(tiny, quantized, Bits(8, 8), "both").weights == 0.0
