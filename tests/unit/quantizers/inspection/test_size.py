"""Bytes: counted by hand, and beside what libraries write to disk."""

import io

import pytest
import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.inspection import coverage, size


def measured(full, quantized, bits, scope="both", granularity="channel"):
    return coverage.measure(full, quantized, bits, scope, granularity)


def on_disk(clip) -> int:
    file = io.BytesIO()
    torch.save(clip.module.state_dict(), file)
    return file.tell()


def test_full_precision_is_four_bytes_a_parameter(tiny):
    assert size.model_size(tiny) == 4 * sum(parameter.numel() for parameter in tiny.module.parameters())
    assert size.model_size(tiny) == pytest.approx(on_disk(tiny), rel=0.05)


@pytest.mark.parametrize("scope", ["vision", "text", "both"])
@pytest.mark.parametrize("bits", [Format.integers(3), Format.integers(6, 8), Format.integers(8)])
def test_rounded_weights_take_their_bits_and_a_scale_per_channel(tiny, quantize, bits, scope):
    clip = quantize(tiny, "minmax", bits, scope)
    found = measured(tiny, clip, bits, scope)
    weights = [
        module.weight
        for name, module in clip.module.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and clip.in_scope(name, scope)
    ]
    saved = sum(weight.numel() * (32 - bits.weights.bits) / 8 - 4 * len(weight) for weight in weights)
    assert found.size == pytest.approx(found.full_size - saved, abs=1)
    assert found.full_size == size.model_size(tiny)


@pytest.mark.parametrize(
    ("name", "element", "scale", "of_all", "block"),
    [
        ("fp8w", 8, 32, 0, None),
        ("bf16w", 16, 0, 0, None),
        ("mxfp8w", 8, 8, 0, 32),
        ("mxfp6w", 6, 8, 0, 32),
        ("mxfp4w", 4, 8, 0, 32),
        ("nvfp4w", 4, 8, 32, 16),
        ("w4g24", 4, 32, 0, 24),
    ],
)
def test_floats_take_their_elements_and_a_scale_for_each_block(tiny, quantize, name, element, scale, of_all, block):
    """Blocks lie along the input channels, at each place of a kernel; groups run through the whole channel."""
    form = Format.of(name)
    clip = quantize(tiny, "minmax", form)
    found = measured(tiny, clip, form)
    assert (found.weights, found.missing) == (1.0, ())
    saved = 0.0
    for module in clip.module.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            out, inputs, places = len(module.weight), module.weight.shape[1], module.weight[0][0].numel()
            if form.group:
                inputs, places = inputs * places, 1
            grids = 0 if not scale else out if block is None else out * places * -(-inputs // block)
            saved += module.weight.numel() * (32 - element) / 8 - (grids * scale + of_all) / 8
    assert found.size == pytest.approx(found.full_size - saved, abs=1)


def test_groups_cost_more_scales_and_a_tensor_one(tiny, quantize):
    sizes = [
        measured(
            tiny,
            quantize(tiny, "minmax", Format.integers(4), granularity=granularity),
            Format.integers(4),
            granularity=granularity,
        ).size
        for granularity in ("tensor", "channel", 16)
    ]
    assert sizes == sorted(set(sizes))


def test_what_is_not_quantized_counts_in_full(tiny):
    found = measured(tiny, tiny.copy(), Format.integers(4))
    assert (found.weights, found.size) == (0, found.full_size)


def test_what_a_library_keeps_is_what_it_writes(tiny, quantize):
    pytest.importorskip("torchao", reason="the extra pytest-qreliab[torchao] is not installed")
    clip = quantize(tiny, "torchao", Format.integers(8))
    found = measured(tiny, clip, Format.integers(8))
    assert found.size == pytest.approx(on_disk(clip), rel=0.15)  # on disk names are as long as these small weights
    assert measured(tiny, quantize(tiny, "torchao", Format.integers(4)), Format.integers(4)).size < found.size


@pytest.mark.parametrize("bits", [Format.integers(4), Format.integers(8, 8)])
def test_bitsandbytes_is_less_than_its_memory(tiny, quantize, bits):
    pytest.importorskip("bitsandbytes", reason="the extra pytest-qreliab[bitsandbytes] is not installed")
    found = measured(tiny, quantize(tiny, "bitsandbytes", bits), bits)
    elements = found.total_weights * found.weights
    assert found.size == pytest.approx(found.full_size - elements * (32 - bits.weights.bits) / 8, rel=0.1)


@pytest.mark.slow
def test_a_graph_takes_what_its_initializers_do(tiny, quantize):
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package, reason="the extra pytest-qreliab[onnxruntime] is not installed")
    clip = quantize(tiny, "onnxruntime", Format.integers(8, 8))
    found = measured(tiny, clip, Format.integers(8, 8))
    files = sum(len(tower.graph().SerializeToString()) for tower in clip.module.towers().values())
    assert found.size < files  # which hold the nodes as well: of a model as small as this half of them
    assert found.size == pytest.approx(found.full_size - 3 * found.total_weights, rel=0.1)
    vision, text = (
        measured(tiny, quantize(tiny, "onnxruntime", Format.integers(8, 8), scope), Format.integers(8, 8), scope)
        for scope in ("vision", "text")
    )
    assert vision.size + text.size == pytest.approx(found.size + found.full_size, abs=64)  # neither tower counts twice
