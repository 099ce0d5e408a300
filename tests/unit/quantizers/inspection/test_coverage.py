from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.transforms import functional as F

from pytest_qreliab.config.formats import Format, integer
from pytest_qreliab.errors import InputError
from pytest_qreliab.evaluation.planning.catalog import Catalog
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, input_quantizer
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.grid import Grid, Scheme
from pytest_qreliab.quantizers.inspection import coverage


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
@pytest.mark.parametrize("bits", [Format.integers(8), Format.integers(2), Format.integers(4, 8)])
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
            scheme = Scheme(number=integer(4))
            module.weight.copy_(scheme.fit_values(module.weight, grid.minmax).round(module.weight))
            input_quantizer.ensure_input_quantizer(module).round = Grid(torch.tensor(0.1), -128, 127, integer(8)).round
    weights = coverage.measure(tiny, naive, Format.integers(4), "both")
    assert 0.5 < weights.weights < 0.8
    assert "visual.transformer.resblocks.0.attn.in_proj_weight" in weights.missing
    assert "visual.conv1.weight" in weights.missing
    # out_proj's weight is rounded, but its forward is never called: its input is not.
    both = coverage.measure(tiny, naive, Format.integers(4, 8), "both")
    assert both.weights < weights.weights
    assert "visual.transformer.resblocks.0.attn.out_proj.weight" in both.missing
    with pytest.raises(
        InputError,
        match=r"covers .*not or not fully quantized: .*in_proj_weight.*; .* does not lie on grids of 16 levels",
    ):
        weights.require(1.0, "naive w4")


def test_an_unquantized_model_covers_nothing(tiny):
    found = coverage.measure(tiny, tiny.copy(), Format.integers(8), "both")
    assert (found.weights, found.flops) == (0.0, 0.0)
    assert found.reason == "does not lie on grids of 256 levels"


@pytest.mark.parametrize("rounded", [lambda i: i % 4 == 0, lambda i: i % 2 == 0, lambda i: i < 48], ids=["4", "2", "3"])
def test_a_weight_of_which_some_channels_are_rounded_is_not_covered(tiny, rounded):
    """Whichever these are: every fourth of 64, which a fixed step would be, every other, or three of four heads."""
    partly, layers = engine_layers.unpack_layers(tiny, "vision")
    for layer in layers.values():
        rows = layer.weight.flatten(1)
        scheme = Scheme(number=integer(4))
        chosen = torch.tensor([rounded(i) for i in range(len(rows))])[:, None]
        layer.weight.copy_(
            rows.where(~chosen, scheme.fit_values(rows, grid.minmax).round(rows)).view(layer.weight.shape)
        )
    assert coverage.measure(tiny, partly, Format.integers(4), "vision").weights == 0.0


def test_a_hook_that_does_not_round_is_no_quantized_activation(tiny, quantize):
    quantized = quantize(tiny, "quarot", Format.integers(8))
    assert coverage.measure(tiny, quantized, Format.integers(8), "both").weights == 1.0
    found = coverage.measure(tiny, quantized, Format.integers(8, 8), "both")
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
    found = coverage.measure(trained, quantize(trained, "minmax", Format.integers(bits)), Format.integers(bits), "both")
    assert (found.weights, found.missing, found.reason) == (1.0, (), "")
    assert (
        coverage.measure(trained, trained.copy(), Format.integers(bits), "both").weights == 1.0
    )  # it needs no quantizer
    assert coverage.measure(trained, trained.copy(), Format.integers(bits - 1), "both").weights == 0.0
    for control in ("noise", "lowrank"):  # which err as the quantizer does: not at all
        assert coverage.measure(trained, quantize(trained, control, Format.integers(bits)), None, "both").weights == 1.0


@pytest.mark.parametrize("bits", [Format.integers(2), Format.integers(8), Format.integers(8, 8)])
def test_a_matrix_of_zeros_is_covered(tiny, quantize, bits):
    pruned = tiny.copy()
    pruned.module.transformer.resblocks[0].mlp.c_fc.weight.zero_()
    assert coverage.measure(pruned, quantize(pruned, "minmax", bits), bits, "both").missing == ()
    assert coverage.measure(pruned, quantize(pruned, "noise", Format.integers(4)), None, "both").missing == ()


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


@pytest.mark.parametrize("bits", [Format.integers(2), Format.integers(4), Format.integers(8), Format.integers(8, 8)])
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
    found = coverage.measure(clip, quantize(clip, "minmax", Format.integers(4)), Format.integers(4), "both")
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
    expected = coverage.measure(clip, quantize(clip, "minmax", Format.integers(4)), Format.integers(4), "both")
    quantized = quantize(clip, "minmax", Format.integers(4))
    in_one_storage(quantized.module)
    assert coverage.measure(clip, quantized, Format.integers(4), "both") == expected
    in_one_storage(clip.module)
    again = Clip.wrap(clip.module, clip.preprocess, clip.tokenizer, logit_scale=10.0)
    assert [again.in_scope(name, "vision") for name in ("narrow.weight", "words.weight", "words.bias")] == [
        True,
        False,
        False,
    ]


def test_what_is_in_no_product_is_not_counted(tiny):
    counted = coverage.measure(tiny, tiny, Format.integers(8), "both").missing
    names = {name for name, _ in tiny.module.named_parameters()}
    left = names - set(counted)
    assert all(
        name.endswith(("bias", "embedding", "embedding.weight", "logit_scale")) or ".ln_" in f".{name}" for name in left
    )


@pytest.mark.parametrize("quantizer", ["minmax", "quarot"])
def test_products_of_activations_count_in_a_share_of_their_own(tiny, quantize, quantizer):
    eights = Format.integers(8, 8)
    found = coverage.measure(tiny, quantize(tiny, quantizer, eights, "vision"), eights, "vision")
    visual = tiny.module.visual
    tokens, width = 1 + visual.grid_size[0] * visual.grid_size[1], visual.transformer.width
    attention = 4 * tokens**2 * width * visual.transformer.layers  # two products of 2 FLOPs an entry
    _, layers = engine_layers.unpack_layers(tiny, "vision")
    read = {"visual.proj": 1, "visual.conv1": tokens - 1}
    weights = sum(2 * layer.weight.numel() * read.get(name, tokens) for name, layer in layers.items())
    assert found.products == pytest.approx(weights / (weights + attention), rel=1e-9)
    assert (found.weights, found.flops) == (1.0, 1.0)


def test_integer_products_are_covered_on_every_architecture(architecture, ask):
    assert _products(architecture, ask, products="integer") == 1.0


def test_products_that_are_rounded_row_by_row_are_covered(architecture_of, ask):
    assert _products(architecture_of("vit"), ask, products="integer", activations="dynamic") == 1.0


def _products(clip, ask, **parameters) -> float:
    request = ask(Format.integers(8, 8), "vision", **parameters)
    rounded = replace(Catalog().recipe("minmax"), parameters=request.parameters).quantize(clip, request)
    return coverage.measure(clip, rounded, request.bits, "vision").products


@pytest.mark.parametrize("left_out", [("query",), ("value",), ("query", "softmax")])
def test_a_product_counts_if_both_of_its_sides_are_rounded(architecture_of, ask, left_out):
    vit, kinds = architecture_of("vit"), ("query", "key", "value", "softmax")
    none = _products(vit, ask, products=[])
    half = none + (1 - none) / 2
    some = _products(vit, ask, products=[kind for kind in kinds if kind not in left_out])
    assert some == pytest.approx(none if len(left_out) == 2 else half)


def test_what_is_kept_on_purpose_counts_against_the_share_and_not_against_the_promise(tiny, ask, quantize):
    patterns = {"visual.conv1": "w8", "*.attn.out_proj": "keep"}
    bits = Format.of("w3a8")
    formats = engine_layers.find_own_formats(tiny, ask(bits, layers=patterns))
    found = coverage.measure(tiny, quantize(tiny, "minmax", bits, layers=patterns), bits, "both", formats=formats)
    _, layers = engine_layers.unpack_layers(tiny, "both")
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    kept = sum(size for name, size in sizes.items() if name.endswith("out_proj"))
    total, first = sum(sizes.values()), sizes["visual.conv1"]
    assert found.weights == pytest.approx(1 - kept / total)
    assert found.mean_bits == pytest.approx((32 * kept + 8 * first + 3 * (total - kept - first)) / total)
    found.require(1.0, "minmax w3a8")
    everything = coverage.measure(tiny, quantize(tiny, "minmax", bits), bits, "both", formats=formats)
    assert everything.reason == "was to be kept in full precision, and has changed"
    with pytest.raises(InputError, match=r"was to be kept in full precision, and has changed"):
        everything.require(1.0, "minmax w3a8")
    plain = coverage.measure(tiny, quantize(tiny, "minmax", bits), bits, "both")
    assert plain.size < found.size < plain.full_size
