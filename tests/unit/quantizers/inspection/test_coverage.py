import pytest
import torch
from torch import nn
from torchvision.transforms import functional as F

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine import layers as engine_layers
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
    with pytest.raises(
        InputError,
        match=r"covers .*not or not fully quantized: .*in_proj_weight.*; .* does not lie on grids of 16 levels",
    ):
        weights.require(1.0, "naive w4")


def test_an_unquantized_model_covers_nothing(tiny):
    found = coverage.measure(tiny, tiny.copy(), Bits(8), "both")
    assert (found.weights, found.flops) == (0.0, 0.0)
    assert found.reason == "does not lie on grids of 256 levels"


def test_a_hook_that_does_not_round_is_no_quantized_activation(tiny, quantize):
    quantized = quantize(tiny, "quarot", Bits(8))
    assert coverage.measure(tiny, quantized, Bits(8), "both").weights == 1.0
    found = coverage.measure(tiny, quantized, Bits(8, 8), "both")
    assert (found.weights, found.reason) == (0.0, "is rounded, and its input is not")


def each_weight(clip, change):
    """A copy of a model with every matrix and convolution changed."""
    changed, layers = engine_layers.unpack_layers(clip, "both")
    for layer in layers.values():
        layer.weight.copy_(change(layer.weight))
    return changed


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_weights_that_lie_on_the_grid_already_are_covered(tiny, quantize, rounded_rows, bits):
    """A model that was trained for quantization: rounding changes nothing."""
    trained = each_weight(tiny, lambda weight: rounded_rows(weight, bits))
    found = coverage.measure(trained, quantize(trained, "minmax", Bits(bits)), Bits(bits), "both")
    assert (found.weights, found.missing, found.reason) == (1.0, (), "")
    assert coverage.measure(trained, trained.copy(), Bits(bits), "both").weights == 1.0  # it needs no quantizer
    assert coverage.measure(trained, trained.copy(), Bits(bits - 1), "both").weights == 0.0
    for control in ("noise", "lowrank"):  # which err as the quantizer does: not at all
        assert coverage.measure(trained, quantize(trained, control, Bits(bits)), None, "both").weights == 1.0


@pytest.mark.parametrize("bits", [Bits(2), Bits(8), Bits(8, 8)])
def test_a_matrix_of_zeros_is_covered(tiny, quantize, bits):
    pruned = tiny.copy()
    pruned.module.transformer.resblocks[0].mlp.c_fc.weight.zero_()
    assert coverage.measure(pruned, quantize(pruned, "minmax", bits), bits, "both").missing == ()
    assert coverage.measure(pruned, quantize(pruned, "noise", Bits(4)), None, "both").missing == ()


class Small(nn.Module):
    """Layers with few inputs: depthwise, one weight per channel, and narrow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.depthwise, self.scales = nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 3, 1, groups=3)
        self.narrow, self.words = nn.Linear(3, 8), nn.Linear(5, 8)

    def encode_image(self, images):
        return self.narrow(self.scales(self.depthwise(images)).mean((2, 3)))

    def encode_text(self, tokens):
        return self.words(tokens)


def small(kind: type[Small] = Small) -> Clip:
    return Clip.wrap(
        kind(),
        preprocess=lambda image: F.to_tensor(image.resize((8, 8))),
        tokenizer=lambda texts: torch.tensor([[len(text), 1, 2, 3, 4] for text in texts], dtype=torch.float32),
        logit_scale=10.0,
    )


@pytest.mark.parametrize("bits", [Bits(2), Bits(4), Bits(8), Bits(8, 8)])
@pytest.mark.parametrize("parameters", [{}, {"symmetric": False}, {"granularity": "tensor"}, {"granularity": 4}])
def test_layers_with_few_inputs_are_covered_if_they_are_rounded_and_only_then(quantize, bits, parameters):
    clip = small()
    granularity = parameters.get("granularity", "channel")
    quantized = quantize(clip, "minmax", bits, **parameters)
    assert coverage.measure(clip, quantized, bits, "both", granularity).missing == ()
    # Changed and not rounded, as by a scale that is folded into a layer which the quantizer then forgets.
    other = each_weight(clip, lambda weight: weight * 1.1)
    missing = {"depthwise.weight", "narrow.weight", "words.weight"} | (
        {"scales.weight"} if granularity == "tensor" or bits.activations else set()
    )
    assert set(coverage.measure(clip, other, bits, "both", granularity).missing) == missing


class Recurrent(Small):
    """Reads words one after the other, in one kernel that hides its products."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.LSTM(5, 8, batch_first=True)

    def encode_text(self, tokens):
        return self.reader(tokens[:, None])[0][:, -1]


def test_the_weights_of_a_recurrent_layer_count(quantize):
    clip = small(Recurrent)
    found = coverage.measure(clip, quantize(clip, "minmax", Bits(4)), Bits(4), "both")
    assert set(found.missing) == {"reader.weight_ih_l0", "reader.weight_hh_l0"}
    assert found.total_weights == 27 + 3 + 24 + 160 + 256
    assert 0 < found.flops < 1


def in_one_storage(module: nn.Module) -> None:
    """Make all parameters parts of one tensor, as some trainers and cuDNN do."""
    flat = torch.cat([parameter.flatten() for parameter in module.parameters()])
    parts = flat.split([parameter.numel() for parameter in module.parameters()])
    for parameter, part in zip(module.parameters(), parts, strict=True):
        parameter.data = part.view(parameter.shape)


def test_weights_in_one_storage_are_told_apart(quantize):
    clip = small()
    expected = coverage.measure(clip, quantize(clip, "minmax", Bits(4)), Bits(4), "both")
    quantized = quantize(clip, "minmax", Bits(4))
    in_one_storage(quantized.module)
    assert coverage.measure(clip, quantized, Bits(4), "both") == expected
    in_one_storage(clip.module)
    again = Clip.wrap(clip.module, clip.preprocess, clip.tokenizer, logit_scale=10.0)
    assert [again.in_scope(name, "vision") for name in ("narrow.weight", "words.weight", "words.bias")] == [
        True,
        False,
        False,
    ]


def test_what_is_in_no_product_is_not_counted(tiny):
    counted = coverage.measure(tiny, tiny, Bits(8), "both").missing
    names = {name for name, _ in tiny.module.named_parameters()}
    left = names - set(counted)
    assert all(
        name.endswith(("bias", "embedding", "embedding.weight", "logit_scale")) or ".ln_" in f".{name}" for name in left
    )
