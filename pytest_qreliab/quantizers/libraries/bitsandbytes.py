"""`bitsandbytes`: every Linear as one of the library's own.

w8a8 is `Linear8bitLt` (LLM.int8()) and w4 is `Linear4bit`, with the library's kernels. The towers are unpacked first,
so that the attention and the final projections are Linears too. bitsandbytes has no convolutions: those stay in full
precision, and the coverage says so.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.unpack import Projection
from pytest_qreliab.quantizers.libraries import optional
from pytest_qreliab.quantizers.parameters import BitsAndBytes
from pytest_qreliab.quantizers.request import Request


def quantize(clip: Clip, request: Request) -> Clip:
    """Return a copy with 8-bit or packed 4-bit weights.

    There is no w8 alone: LLM.int8() rounds the activations as well.

    Raises:
        InputError: It has no such bits, or its kernels cannot run the model on this device.
    """
    library = optional.load("bitsandbytes.nn")
    clip, layers, request = engine_layers.prepare_layers(clip, request)
    device = clip.device
    with optional.quiet():
        for name, linear in engine_layers.linears(clip, layers, request, "bitsandbytes").items():
            bits = request.format_of(name)
            if bits not in (Format.integers(4), Format.integers(8, 8)):
                raise InputError(
                    f"bitsandbytes has no {bits}: write w4, or w8a8 (its int8 rounds the activations as well)"
                )
            _check_blocks(name, linear, clip, request)
            parent, _, leaf = name.rpartition(".")
            new = _replace(library, linear, bits, request.parameters)
            setattr(clip.module.get_submodule(parent), leaf, new.to(device).eval())
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_no_cast_message)
    try:
        engine_layers.encode_probes(clip, request.scope)
    except RuntimeError as error:  # of its kernels: what they can do differs from device to device
        reason = str(error).partition("\n")[0]
        raise InputError(f"bitsandbytes {request.bits} cannot run {clip.name} on {device}: {reason}") from error
    return clip


def _check_blocks(name: str, linear: nn.Linear, clip: Clip, request: Request) -> None:
    # Its CPU kernel takes every row to begin a block, which its packing does not do: the weights come out wrong.
    size = request.parameters.block_size
    if request.format_of(name).weights.bits == 4 and clip.device.type == "cpu" and linear.in_features % size:
        raise InputError(
            f"bitsandbytes w4 computes wrongly on the CPU where blocks cross rows, and block_size {size} does not "
            f"divide the {linear.in_features} inputs of {name} in {clip.name}; take a smaller block_size or a GPU"
        )


def _replace(library: Any, linear: nn.Linear, bits: Format, parameters: BitsAndBytes) -> nn.Module:
    weight = linear.weight.detach().cpu().contiguous()  # the move to the device is what quantizes
    kind = _flat(library.Linear8bitLt if bits.weights.bits == 8 else library.Linear4bit, isinstance(linear, Projection))
    shape = linear.in_features, linear.out_features
    bias = linear.bias is not None
    new: nn.Module
    if bits.weights.bits == 8:
        new = kind(*shape, bias=bias, has_fp16_weights=False, threshold=parameters.threshold, device="meta")
        new.weight = library.Int8Params(weight, has_fp16_weights=False, requires_grad=False)
    else:
        levels = parameters.data_type
        new = kind(*shape, bias=bias, quant_type=levels, compute_dtype=torch.float32, device="meta")
        new.weight = library.Params4bit(
            weight, requires_grad=False, quant_type=levels, blocksize=parameters.block_size, module=new
        )
        # Its other CPU kernel needs AVX512-BF16 and a download, rounds scales to bfloat16, and refuses small layers.
        new.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    if bias:
        new.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
    # open_clip casts activations to the dtype of this weight, which is no float any more.
    new.int8_original_dtype = torch.float32  # type: ignore[assignment]
    return new


def _flat(kind: Any, projection: bool) -> Any:
    """Return a layer class that flattens its input to rows.

    The int8 kernel for CPUs fails on maps of rows, as ConvNeXt's Linears read them.
    """

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = kind.forward(self, x.flatten(0, -2))
        return rows.reshape(*x.shape[:-1], -1)

    methods = {"forward": forward} | ({"__rmatmul__": Projection.__rmatmul__} if projection else {})
    flat = type(kind.__name__, (kind,), methods)
    flat.__module__ = kind.__module__  # it is still a layer of that library
    return flat


def _no_cast_message(record: logging.LogRecord) -> bool:
    # Every call of every layer logs that LLM.int8() takes its input in 16 bits.
    return "inputs will be cast from" not in record.getMessage()
