"""`torchao` and `torchao-float8`: every Linear quantized by torchao.

Storage and kernels are torchao's own. The towers are unpacked first, so that torchao sees the attention and the final
projections too. torchao has no convolutions: those stay in full precision, and the coverage says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.libraries import optional
from pytest_qreliab.quantizers.parameters import TorchAo
from pytest_qreliab.quantizers.request import Request

INTEGERS = [Format.integers(weights, activations) for weights in range(2, 9) for activations in (None, 8)]


def quantize(clip: Clip, request: Request) -> Clip:
    """Return a copy with integer weights: int8, or intx below 8 bits.

    `a8` rounds activations per token, as they come.

    Raises:
        InputError: torchao has no such bits, or the group size does not divide the inputs of a layer.
    """
    parameters: TorchAo = request.parameters

    def config(bits: Format) -> Any:
        if bits not in INTEGERS:
            raise InputError(f"torchao has no {bits}: write w2 to w8, or w2a8 to w8a8")
        return _integers(bits, parameters.group_size)

    return _apply(clip, request, config, parameters.group_size)


def quantize_float8(clip: Clip, request: Request) -> Clip:
    """Return a copy with float8 (e4m3) weights.

    There is one scale per output channel. `fp8` puts activations into float8 too, with one scale per row. `w8` is
    another name of `fp8w`, and `w8a8` of `fp8`.

    Raises:
        InputError: It has no such bits, or the device does not compute in float8.
    """
    library, granularity = optional.load("torchao.quantization"), optional.load("torchao.quantization.granularity")

    def config(bits: Format) -> Any:
        if str(bits) not in ("w8", "w8a8", "fp8w", "fp8"):
            raise InputError(f"torchao-float8 has no {bits}: write fp8w, or fp8 on a GPU")
        if bits.activations is None:
            return library.Float8WeightOnlyConfig(set_inductor_config=False)
        if clip.device.type != "cuda" or torch.cuda.get_device_capability(clip.device) < (8, 9):
            raise InputError(
                f"torchao-float8 {bits} needs a GPU that computes in float8 (compute capability 8.9 or more), and the "
                f"device is {clip.device}; write fp8w, which works everywhere"
            )
        return library.Float8DynamicActivationFloat8WeightConfig(
            granularity=granularity.PerRow(), set_inductor_config=False
        )

    return _apply(clip, request, config, None)


def _integers(bits: Format, group_size: int | None) -> Any:
    library, granularity = optional.load("torchao.quantization"), optional.load("torchao.quantization.granularity")
    rows = granularity.PerAxis(0) if group_size is None else granularity.PerGroup(group_size)
    if bits == Format.integers(8, 8) and group_size is None:
        return library.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    if bits == Format.integers(8) and group_size is None:
        return library.Int8WeightOnlyConfig(set_inductor_config=False)
    dtype = getattr(torch, bits.weights.name)
    if bits.activations is None:
        return library.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=rows)
    return library.Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=rows)


def _apply(clip: Clip, request: Request, config: Callable[[Format], Any], group_size: int | None) -> Clip:
    clip, layers, request = engine_layers.prepare_layers(clip, request)
    by_format: dict[Format, set[nn.Module]] = {}
    for name, linear in engine_layers.linears(clip, layers, request, "torchao").items():
        if group_size is not None and linear.in_features % group_size:
            raise InputError(
                f"torchao: group_size {group_size} does not divide the {linear.in_features} inputs of {name} "
                f"in {clip.name}"
            )
        by_format.setdefault(request.format_of(name), set()).add(linear)
    for form, chosen in by_format.items():
        made = config(form)
        with optional.quiet():
            optional.load("torchao.quantization").quantize_(
                clip.module, made, filter_fn=lambda module, name, chosen=chosen: module in chosen
            )
    return clip
