"""The Linears and convolutions that quantizers work on, by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import probes
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import packed_weights
from pytest_qreliab.quantizers.engine.input_quantizer import effective_weight
from pytest_qreliab.quantizers.engine.unpack import unpack

Layers = dict[str, nn.Module]


def unpack_layers(clip: Clip, scope: str) -> tuple[Clip, Layers]:
    """Return a copy of a model that keeps its matrices in layers.

    Each is then the weight of a Linear or a convolution.

    Args:
        clip: The full-precision model, which is left as it is.
        scope: The towers to unpack: "vision", "text" or "both".

    Returns:
        The copy, and the Linears and convolutions of these towers by name.

    Raises:
        InputError: The towers have no Linear and no convolution, or one whose weight is no parameter.
    """
    clip = clip.copy()
    unpack(clip, scope)
    layers: Layers = {
        name: module
        for name, module in clip.module.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and clip.in_scope(name, scope)
    }
    if not layers:
        raise InputError(f"{clip.name}: no Linear or convolution to quantize in scope {scope!r}")
    for name, layer in layers.items():
        if "weight" not in dict(layer.named_parameters(recurse=False)):  # weight_norm and the like
            raise InputError(
                f"{clip.name}: the weight of {name} is computed from other parameters; make it one of its own first, "
                "as with torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"
            )
    return clip, layers


def linears(clip: Clip, layers: Layers, library: str) -> dict[str, nn.Linear]:
    """Return the Linears among layers, for a library that quantizes no convolutions.

    Args:
        clip: The model, for the message.
        layers: Layers by name.
        library: The name of the library, for the message.

    Raises:
        InputError: There is no Linear.
    """
    found = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    if not found:
        raise InputError(f"{clip.name}: {library} quantizes Linears alone, and there is none in scope")
    return found


def probe_images(clip: Clip) -> torch.Tensor:
    """Return four images unlike each other, preprocessed: (4, 3, height, width)."""
    return torch.stack([clip.preprocess(image) for image in probes.images()])


def encode_probes(clip: Clip, scope: str) -> None:
    """Pass four images and four prompts, each by itself, through the towers in `scope`.

    A layer that is used for some inputs only, or for prompts of some length, is then seen.
    """
    if scope != "text":
        for image in probe_images(clip):
            clip.encode_image(image[None])
    if scope != "vision":
        for prompt in probes.PROMPTS:
            clip.encode_text([prompt])


@dataclass(frozen=True, kw_only=True)
class WeightPair:
    """A weight in full precision and quantized."""

    name: str  # of the layer
    layer: nn.Module  # of the copy in full precision
    full: torch.Tensor  # (out, n)
    quantized: torch.Tensor  # (out, n), as it acts on an untransformed input


def weight_pairs(full: Clip, quantized: Clip, scope: str) -> tuple[Clip, list[WeightPair]]:
    """Return each weight of a full-precision model beside the quantized one.

    Args:
        full: The full-precision model, which is left as it is.
        quantized: A quantized copy of it, unpacked.
        scope: The towers to look at: "vision", "text" or "both".

    Returns:
        A copy of the full-precision model with these towers unpacked, and the weights of its layers.

    Raises:
        InputError: A quantized weight is in a library's own storage, or in a graph.
    """
    clip, layers = unpack_layers(full, scope)
    modules = dict(quantized.module.named_modules())
    pairs = []
    for name, layer in layers.items():
        weight, like = layer.get_parameter("weight").detach(), modules.get(name)
        dense = isinstance(like, nn.Linear | nn.Conv2d) and not packed_weights.is_library_tensor(like.weight)
        if like is None or not dense or like.get_parameter("weight").shape != weight.shape:
            raise InputError(f"its layer {name} has no dense weight")
        acting = effective_weight(like).flatten(1).to(weight.device)
        pairs.append(WeightPair(name=name, layer=layer, full=weight.flatten(1), quantized=acting))
    return clip, pairs
