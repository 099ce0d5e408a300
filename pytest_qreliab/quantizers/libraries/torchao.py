"""`torchao` and `torchao-float8`: every Linear quantized by torchao.

Storage and kernels are torchao's own. The towers are unpacked first, so that torchao sees the attention and the final
projections too. torchao has no convolutions: those stay in full precision, and the coverage says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pytest_qreliab.config.cases import Bits
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.libraries import optional
from pytest_qreliab.quantizers.parameters import TorchAo
from pytest_qreliab.quantizers.request import Request


def quantize(clip: Clip, request: Request) -> Clip:
    """Return a copy with integer weights: int8, or intx below 8 bits.

    `a8` rounds activations per token, as they come.

    Raises:
        InputError: torchao has no such bits, or the group size does not divide the inputs of a layer.
    """
    parameters: TorchAo = request.parameters
    if request.bits.activations not in (None, 8) or not 2 <= request.bits.weights <= 8:
        raise InputError(f"torchao has no {request.bits}: write w2 to w8, or w2a8 to w8a8")
    config = _integers(request.bits, parameters.group_size)
    return _apply(clip, request, config, parameters.group_size)


def quantize_float8(clip: Clip, request: Request) -> Clip:
    """Return a copy with float8 (e4m3) weights.

    There is one scale per output channel. `a8` puts activations into float8 too, with one scale per row.

    Raises:
        InputError: It has no such bits, or the device does not compute in float8.
    """
    if request.bits not in (Bits(8), Bits(8, 8)):
        raise InputError(f"torchao-float8 has no {request.bits}: write w8, or w8a8 on a GPU")
    library, granularity = optional.load("torchao.quantization"), optional.load("torchao.quantization.granularity")
    if request.bits.activations is None:
        config = library.Float8WeightOnlyConfig(set_inductor_config=False)
    else:
        if clip.device.type != "cuda" or torch.cuda.get_device_capability(clip.device) < (8, 9):
            raise InputError(
                f"torchao-float8 w8a8 needs a GPU that computes in float8 (compute capability 8.9 or more), and "
                f"the device is {clip.device}; write w8, which works everywhere"
            )
        config = library.Float8DynamicActivationFloat8WeightConfig(
            granularity=granularity.PerRow(), set_inductor_config=False
        )
    return _apply(clip, request, config, None)


def _integers(bits: Bits, group_size: int | None) -> Any:
    library, granularity = optional.load("torchao.quantization"), optional.load("torchao.quantization.granularity")
    rows = granularity.PerAxis(0) if group_size is None else granularity.PerGroup(group_size)
    if bits == Bits(8, 8) and group_size is None:
        return library.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    if bits == Bits(8) and group_size is None:
        return library.Int8WeightOnlyConfig(set_inductor_config=False)
    dtype = getattr(torch, f"int{bits.weights}")
    if bits.activations is None:
        return library.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=rows)
    return library.Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=rows)


def _apply(clip: Clip, request: Request, config: Any, group_size: int | None) -> Clip:
    clip, layers = engine_layers.unpack_layers(clip, request.scope)
    linears = engine_layers.linears(clip, layers, "torchao")
    for name, linear in linears.items():
        if group_size is not None and linear.in_features % group_size:
            raise InputError(
                f"torchao: group_size {group_size} does not divide the {linear.in_features} inputs of {name} "
                f"in {clip.name}"
            )
    chosen = set(linears.values())
    with optional.quiet():
        optional.load("torchao.quantization").quantize_(
            clip.module, config, filter_fn=lambda module, name: isinstance(module, nn.Linear) and module in chosen
        )
    return clip
