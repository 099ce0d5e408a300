import copy
import logging

import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.quantizers.engine import packed_weights
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries import bitsandbytes
from pytest_qreliab.quantizers.parameters import BitsAndBytes
from pytest_qreliab.quantizers.request import Request

pytest.importorskip("bitsandbytes", reason="the extra pytest-qreliab[bitsandbytes] is not installed")

FEW = pytest.mark.parametrize("architecture", ["vit", "resnet", "convnext-atto", "siglip-like"], indirect=True)


def quantized(clip, bits, scope="both", **parameters):
    return bitsandbytes.quantize(clip, Request(bits=bits, scope=scope, parameters=BitsAndBytes(**parameters)))


@FEW
def test_eight_bits_are_near_full_precision_and_four_are_not_far(architecture, error):
    eight = error(architecture, quantized(architecture, Format.integers(8, 8)))
    four = error(architecture, quantized(architecture, Format.integers(4), block_size=32))
    assert max(eight) < 0.1
    assert all(eight[tower] < four[tower] < 0.6 for tower in (0, 1))


@FEW
@pytest.mark.parametrize("bits", [Format.integers(4), Format.integers(8, 8)])
def test_every_matrix_is_covered_and_no_convolution(architecture, bits):
    found = coverage.measure(architecture, quantized(architecture, bits, block_size=32), bits, "both")
    assert found.matrices == 1.0
    assert found.weights < 1.0
    modules = dict(architecture.module.named_modules())
    assert all(isinstance(modules[name.removesuffix(".weight")], torch.nn.Conv2d) for name in found.missing)


def test_weights_are_stored_in_eight_and_in_four_bits(tiny):
    for bits, dtype, per_byte in ((Format.integers(8, 8), torch.int8, 1), (Format.integers(4), torch.uint8, 2)):
        clip = quantized(tiny, bits)
        linears = [module for module in clip.module.modules() if isinstance(module, torch.nn.Linear)]
        assert len(linears) == 6 * 6 + 2
        for linear in linears:
            assert linear.weight.dtype == dtype
            assert linear.weight.numel() * per_byte == linear.in_features * linear.out_features
            stored = packed_weights.layer_format(linear)
            assert (stored.bits, stored.activations) == (
                bits.weights.bits,
                None if bits.activations is None else bits.activations.bits,
            )
    assert coverage.measure(tiny, clip, Format.integers(4, 8), "both").weights == 0.0  # nf4 rounds no activation


def test_products_are_of_integers(tiny, noise):
    """LLM.int8() multiplies int8 by int8: activations that are no integers come out rounded."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "int8" in str(func) and "mm" in str(func):
                seen.append([arg.dtype for arg in args[:2]])
            return func(*args, **(kwargs or {}))

    clip = quantized(tiny, Format.integers(8, 8), threshold=0.0)
    with Watch():
        clip.encode_image(noise(tiny))
    assert len(seen) == 4 * 6 + 1
    assert all(dtypes == [torch.int8, torch.int8] for dtypes in seen)


def test_data_types_and_block_sizes_matter(tiny, error):
    nf4, fp4, narrow = (
        error(tiny, quantized(tiny, Format.integers(4), **more))[0]
        for more in ({}, {"data_type": "fp4"}, {"block_size": 32})
    )
    assert narrow < nf4 < fp4


def test_blocks_across_rows_are_refused_on_the_cpu(architecture_of):
    clip = architecture_of("vit")
    with pytest.raises(InputError, match=r"block_size 64 does not divide the 32 inputs of visual.* smaller block_size"):
        quantized(clip, Format.integers(4))
    assert quantized(clip, Format.integers(8, 8)) is not None


def test_other_bits_are_refused(tiny):
    with pytest.raises(InputError, match=r"has no w8: write w4, or w8a8 \(its int8 rounds the activations as well\)"):
        quantized(tiny, Format.integers(8))


def test_scope_leaves_the_other_tower_and_the_original_alone(tiny, noise, prompts):
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    vision, text = (quantized(tiny, Format.integers(8, 8), scope) for scope in ("vision", "text"))
    assert torch.equal(vision.encode_text(prompts), tiny.encode_text(prompts))
    assert torch.equal(text.encode_image(noise(tiny)), tiny.encode_image(noise(tiny)))
    assert coverage.measure(tiny, text, Format.integers(8, 8), "text").weights == 1.0
    assert all(torch.equal(value, before[name]) for name, value in tiny.module.state_dict().items())


def test_a_copy_encodes_the_same_and_nothing_is_logged(tiny, noise, caplog):
    with caplog.at_level(logging.INFO):
        for bits in (Format.integers(4), Format.integers(8, 8)):
            clip = quantized(tiny, bits)
            assert torch.equal(copy.deepcopy(clip).encode_image(noise(tiny)), clip.encode_image(noise(tiny)))
    assert not caplog.records


def test_a_layer_that_its_kernels_cannot_do_is_named_as_such(architecture_of, monkeypatch):
    def cut(self, x):
        raise RuntimeError("The size of tensor a (16) must match the size of tensor b (24)\nand more")

    monkeypatch.setattr("bitsandbytes.nn.Linear8bitLt.forward", cut)
    with pytest.raises(InputError, match=r"^bitsandbytes w8a8 cannot run vit on cpu: The size .* b \(24\)$"):
        quantized(architecture_of("vit"), Format.integers(8, 8))


def test_linears_that_read_maps(architecture_of, error):
    clip = architecture_of("convnext")
    eight = quantized(clip, Format.integers(8, 8))
    assert coverage.measure(clip, eight, Format.integers(8, 8), "both").matrices == 1.0
    assert max(error(clip, eight)) < 0.1


def test_layers_have_formats_of_their_own_or_are_kept(tiny):
    parameters = {"block_size": 32, "layers": {"*.out_proj": "keep", "*.q_proj": "w8a8"}}
    clip = quantized(tiny, Format.of("w4"), **parameters)
    first = clip.module.transformer.resblocks[0].attn
    kept, eighth, fourth = (
        packed_weights.layer_format(layer) for layer in (first.out_proj, first.q_proj, first.k_proj)
    )
    assert kept is None
    assert (eighth.bits, fourth.bits) == (8, 4)
    with pytest.raises(InputError, match="bitsandbytes has no w3a8: write w4"):
        quantized(tiny, Format.of("w8a8"), layers={"*.out_proj": "w3"})
