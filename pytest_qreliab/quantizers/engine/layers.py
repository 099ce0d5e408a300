"""The Linears and convolutions that quantizers work on, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.errors import InputError, listed, nearest
from pytest_qreliab.models import probes
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import packed_weights
from pytest_qreliab.quantizers.engine.input_quantizer import effective_weight
from pytest_qreliab.quantizers.engine.unpack import unpack
from pytest_qreliab.quantizers.parameters import FIRST, KEEP, LAST
from pytest_qreliab.quantizers.request import Request

Layers = dict[str, nn.Module]


def unpack_layers(clip: Clip, scope: str) -> tuple[Clip, Layers]:
    """Return a copy of a model that keeps its matrices in layers.

    Each is then the weight of a Linear or a convolution, and of no other module.

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
    layers = find_layers(clip, scope)
    if not layers:
        raise InputError(f"{clip.name}: no Linear or convolution to quantize in scope {scope!r}")
    for name, layer in layers.items():
        if "weight" not in dict(layer.named_parameters(recurse=False)):  # weight_norm and the like
            raise InputError(
                f"{clip.name}: the weight of {name} is computed from other parameters; make it one of its own first, "
                "as with torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"
            )
    _untie(clip, layers)
    return clip, layers


def _untie(clip: Clip, layers: Layers) -> None:
    """Give layers tensors of their own in place of those that they share, as with an embedding, in place."""
    uses = Counter(id(value) for module in clip.module.modules() for value in module._parameters.values())
    for layer in layers.values():
        for name, value in list(layer.named_parameters(recurse=False)):
            if uses[id(value)] > 1:
                setattr(layer, name, nn.Parameter(value.detach().clone(), value.requires_grad))


def find_layers(clip: Clip, scope: str) -> Layers:
    """Return the Linears and convolutions of the towers in a scope, by name."""
    return {
        name: module
        for name, module in clip.module.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and clip.in_scope(name, scope)
    }


def prepare_layers(clip: Clip, request: Request) -> tuple[Clip, Layers, Request]:
    """Return a copy of a model that keeps its matrices in layers, and those to quantize.

    Args:
        clip: The full-precision model, which is left as it is.
        request: Gives the scope, and the patterns of layers that are kept or have a format of their own.

    Returns:
        The copy, the layers to quantize by name, and the request with the formats of those that have their own.

    Raises:
        InputError: There is no layer in scope, all are kept, or a pattern fits none.
    """
    clip, layers = unpack_layers(clip, request.scope)
    formats = own_formats(clip, layers, request)
    layers = {name: layer for name, layer in layers.items() if formats.get(name, request.bits) is not None}
    if not layers:
        raise InputError(f"{clip.name}: layers keeps every layer in full precision: nothing is left to quantize")
    own = {name: form for name, form in formats.items() if form is not None}
    return clip, layers, replace(request, formats=own)


def find_own_formats(full: Clip, request: Request) -> dict[str, Format | None]:
    """Return what `own_formats` does, for a model that is packed."""
    return own_formats(*unpack_layers(full, request.scope), request) if request.parameters.layers else {}


def own_formats(clip: Clip, layers: Mapping[str, nn.Module], request: Request) -> dict[str, Format | None]:
    """Return the formats of the layers that a pattern of the parameters fits, by name; None: it is kept.

    Args:
        clip: The model, unpacked.
        layers: Its layers in scope.
        request: Gives the format of the case and the patterns, of which the first that fits a name counts.

    Raises:
        InputError: A pattern fits no layer.
    """
    patterns = request.parameters.layers
    places = _ends(clip, layers, request.scope) if {FIRST, LAST} & set(patterns) else {}
    found: dict[str, Format | None] = {}
    for pattern, text in patterns.items():
        fitting = [name for name in layers if name in places.get(pattern, ()) or fnmatchcase(name, pattern)]
        if not fitting and pattern not in places:  # no layer of the text tower reads pixels
            near = nearest(pattern, layers)
            raise InputError(
                f"{clip.name}: layers: no layer in scope {request.scope!r} is called {pattern!r}"
                + (f"; did you mean {near!r}?" if near else "")
                + f"; its layers are {listed(layers, 6)}"
            )
        own = None if text == KEEP else request.bits.with_weights(Format.of(text))
        found |= {name: own for name in fitting if name not in found}
    return found


def _ends(clip: Clip, layers: Mapping[str, nn.Module], scope: str) -> dict[str, set[str]]:
    """Return the layers that read the pixels, and those that write the features of a tower, by pattern."""
    order: list[str] = []
    ends: dict[str, set[str]] = {FIRST: set(), LAST: set()}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(lambda layer, args, out, name=name: order.append(name)))
        for tower in ("vision", "text") if scope == "both" else (scope,):
            encode_probes(clip, tower)
            if order:
                ends[LAST].add(order[-1])
                if tower == "vision":
                    ends[FIRST].add(order[0])
            order.clear()
    return ends


def linears(clip: Clip, layers: Layers, request: Request, library: str) -> dict[str, nn.Linear]:
    """Return the Linears among layers, for a library that quantizes no convolutions.

    Args:
        clip: The model, for the message.
        layers: Layers by name.
        request: Gives the formats of layers that have their own.
        library: The name of the library, for the message.

    Raises:
        InputError: There is no Linear, or a convolution is to have a format of its own.
    """
    for name in request.formats:
        if not isinstance(layers[name], nn.Linear):
            raise InputError(f"{clip.name}: {library} quantizes Linears alone, and layers gives a format to {name}")
    found = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    if not found:
        raise InputError(f"{clip.name}: {library} quantizes Linears alone, and there is none in scope")
    return found


def probe_images(clip: Clip) -> torch.Tensor:
    """Return four images unlike each other, preprocessed: (4, 3, height, width)."""
    return torch.stack([clip.preprocess(image) for image in probes.images()])


def probe_passes(clip: Clip, scope: str) -> list[Callable[[], torch.Tensor]]:
    """Return functions that each encode one of four images, or of four prompts, with the towers in `scope`.

    A layer that is used for some inputs only, or for prompts of some length, is then seen.
    """
    images = () if scope == "text" else probe_images(clip)
    prompts = () if scope == "vision" else probes.PROMPTS
    return [
        *(partial(clip.encode_image, image[None]) for image in images),
        *(partial(clip.encode_text, [prompt]) for prompt in prompts),
    ]


def encode_probes(clip: Clip, scope: str) -> None:
    """Pass four images and four prompts, each by itself, through the towers in `scope`."""
    for encode in probe_passes(clip, scope):
        encode()


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
