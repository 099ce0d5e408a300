"""The one mechanism that puts quantization into a model: rounded weights and rounded layer inputs, in float32.

Weights are rounded once, in place. Activations are rounded by a forward pre-hook on the layer that reads
them, so the layer itself stays a plain `nn.Linear` or `nn.Conv2d`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import packed_weights
from pytest_qreliab.quantizers.engine.input_quantizer import effective_weight
from pytest_qreliab.quantizers.engine.unpack import unpack

Layers = dict[str, nn.Module]


def unpack_layers(clip: Clip, scope: str) -> tuple[Clip, Layers]:
    """A copy of the model, its towers in `scope` unpacked, and their weight layers by name."""
    clip = clip.copy()
    unpack(clip, scope)
    layers: Layers = {
        name: module
        for name, module in clip.module.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and clip.in_scope(name, scope)
    }
    if not layers:
        raise InputError(f"{clip.name}: no Linear or convolution to quantize in scope {scope!r}")
    return clip, layers


def linears(clip: Clip, layers: Layers, library: str) -> dict[str, nn.Linear]:
    """Those of `layers` that a library without convolutions can quantize. Raises InputError when there is none."""
    found = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    if not found:
        raise InputError(f"{clip.name}: {library} quantizes Linears alone, and there is none in scope")
    return found


def one_image(clip: Clip) -> torch.Tensor:
    """A black image, preprocessed: (1, 3, height, width)."""
    return clip.preprocess(Image.new("RGB", (64, 64)))[None]


def encode_one(clip: Clip, scope: str) -> None:
    """Pass one image and one prompt through the towers in `scope`, to see what they do."""
    if scope != "text":
        clip.encode_image(one_image(clip))
    if scope != "vision":
        clip.encode_text(["a photo"])


@dataclass(frozen=True)
class WeightPair:
    """A layer of a full-precision copy, its weight as (out, n), and the quantized weight likewise."""

    name: str
    layer: nn.Module
    full: torch.Tensor
    quantized: torch.Tensor


def weight_pairs(full: Clip, quantized: Clip, scope: str) -> tuple[Clip, list[WeightPair]]:
    """A copy of the full-precision model, its towers in `scope` unpacked, with each weight beside the quantized one as
    it acts on an untransformed input. Raises InputError where that is in a library's own storage, or in a graph."""
    clip, layers = unpack_layers(full, scope)
    there = dict(quantized.module.named_modules())
    found = []
    for name, layer in layers.items():
        weight, like = layer.get_parameter("weight").detach(), there.get(name)
        dense = isinstance(like, nn.Linear | nn.Conv2d) and not packed_weights.is_library_tensor(like.weight)
        if like is None or not dense or like.get_parameter("weight").shape != weight.shape:
            raise InputError(f"its layer {name} has no dense weight")
        found.append(WeightPair(name, layer, weight.flatten(1), effective_weight(like).flatten(1).to(weight.device)))
    return clip, found


# Observation: what layers read while calibration data pass
