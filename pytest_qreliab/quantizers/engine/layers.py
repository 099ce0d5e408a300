"""The one mechanism that puts quantization into a model: rounded weights and rounded layer inputs, in float32.

Weights are rounded once, in place. Activations are rounded by a forward pre-hook on the layer that reads
them, so the layer itself stays a plain `nn.Linear` or `nn.Conv2d`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import grid, packed_weights
from pytest_qreliab.quantizers.engine.transform import Transform
from pytest_qreliab.quantizers.engine.unpack import unpack
from pytest_qreliab.quantizers.request import Request

Layers = dict[str, nn.Module]
Round = Callable[[torch.Tensor], torch.Tensor]


def prepare(clip: Clip, scope: str) -> tuple[Clip, Layers]:
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


class InputQuantizer:
    """Pre-hook that transforms a layer's input, and rounds it. `called` says that it has run."""

    def __init__(self, transform: Transform | None = None, round: Round | None = None) -> None:
        self.transform, self.round, self.called = transform, round, False

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.called = True
        x = args[0] if self.transform is None else self.transform.input(layer, args[0])
        return (x if self.round is None else self.round(x), *args[1:])


def input_quantizer(layer: nn.Module) -> InputQuantizer:
    """The layer's own, which is put there where there is none yet."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, InputQuantizer):
            return hook
    hook = InputQuantizer()
    layer.register_forward_pre_hook(hook)
    return hook


def transform(layer: nn.Module, by: Transform) -> None:
    """Make the layer read a transformed input, with the same output."""
    input_quantizer(layer).transform = by
    by.fold(layer)


def effective_weight(layer: nn.Module) -> torch.Tensor:
    """The layer's weight as it acts on its untransformed input."""
    by = next((h.transform for h in layer._forward_pre_hooks.values() if isinstance(h, InputQuantizer)), None)
    return layer.get_parameter("weight").detach() if by is None else by.unfold(layer)


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
    clip, layers = prepare(full, scope)
    there = dict(quantized.module.named_modules())
    found = []
    for name, layer in layers.items():
        weight, like = layer.get_parameter("weight").detach(), there.get(name)
        dense = isinstance(like, nn.Linear | nn.Conv2d) and not packed_weights.is_library_tensor(like.weight)
        if like is None or not dense or like.get_parameter("weight").shape != weight.shape:
            raise InputError(f"its layer {name} has no dense weight")
        found.append(WeightPair(name, layer, weight.flatten(1), effective_weight(like).flatten(1).to(weight.device)))
    return clip, found


@dataclass(frozen=True)
class Dynamic:
    """Rounds to a grid laid over each token, or over each image where the layer is a convolution."""

    bits: int
    symmetric: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        values = x.flatten(1) if x.ndim == 4 else x.flatten(0, -2)
        return (
            grid.lay(*grid.minmax(values, self.bits, self.symmetric), self.bits, self.symmetric)
            .round(values)
            .view(x.shape)
        )


# Observation: what layers read while calibration data pass


class Observer(Protocol):
    """Told of every input of one layer."""

    def see(self, layer: nn.Module, x: torch.Tensor) -> None: ...


ObserverT = TypeVar("ObserverT", bound=Observer)


def observe(
    clip: Clip, layers: Mapping[str, nn.Module], request: Request, make: Callable[[nn.Module], ObserverT]
) -> dict[str, ObserverT]:
    """One observer for each layer that the calibration images and prompts reach."""
    observers: dict[str, ObserverT] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in observers:
                observers[name] = make(layer)
            observers[name].see(layer, args[0].detach())

        return see

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        calibration = request.needed()
        if request.scope != "text":
            for images in calibration.batches(clip, request.parameters.images):
                clip.encode_image(images)
        if request.scope != "vision":
            for prompts in calibration.prompt_batches():
                clip.encode_text(prompts)
    finally:
        for handle in handles:
            handle.remove()
    return observers


def tokens(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the layer reads, as rows of its input channels: (rows, channels)."""
    return (x.movedim(1, -1) if isinstance(layer, nn.Conv2d) else x).flatten(0, -2)


class Values:
    """Keeps evenly spaced values of each input, at most 8,192, and the extremes of all."""

    EACH = 8_192

    def __init__(self, layer: nn.Module) -> None:
        self._kept: list[torch.Tensor] = []

    def see(self, layer: nn.Module, x: torch.Tensor) -> None:
        flat = x.reshape(-1)
        self._kept += [flat[:: -(-len(flat) // self.EACH)].clone(), torch.stack(flat.aminmax())]

    def row(self) -> torch.Tensor:
        """All that was kept, (1, n)."""
        return torch.cat(self._kept)[None]


class Largest:
    """The largest magnitude of each input channel, (channels,)."""

    def __init__(self, layer: nn.Module) -> None:
        self.largest: torch.Tensor | None = None

    def see(self, layer: nn.Module, x: torch.Tensor) -> None:
        seen = tokens(layer, x).abs().amax(0)
        self.largest = seen if self.largest is None else torch.maximum(self.largest, seen)


class Inputs:
    """A sample of what the layer reads: some 128 evenly spaced rows of each call, or 8 whole maps."""

    def __init__(self, layer: nn.Module) -> None:
        self._kept: list[torch.Tensor] = []

    def see(self, layer: nn.Module, x: torch.Tensor) -> None:
        rows, most = (x, 8) if isinstance(layer, nn.Conv2d) else (x.flatten(0, -2), 128)
        self._kept.append(rows[:: -(-len(rows) // most)].clone())

    def all(self) -> torch.Tensor:
        """(rows, channels), or (maps, channels, height, width)."""
        return torch.cat(self._kept)


def output(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What the layer would give for `x` with that weight, without its bias and its hooks."""
    if isinstance(layer, nn.Conv2d):
        result: torch.Tensor = layer._conv_forward(x, weight, None)
        return result
    return F.linear(x, weight)


@dataclass(frozen=True)
class Readers:
    """Layers that read one and the same tensor, and the norm with learned weights that made it, if one did."""

    names: tuple[str, ...]
    norm: nn.LayerNorm | None


def readers(clip: Clip, layers: Mapping[str, nn.Module], request: Request) -> list[Readers]:
    """The layers by what they read; those that share an input must share its transformation."""
    made: dict[int, nn.LayerNorm] = {}
    read: dict[int, list[str]] = defaultdict(list)
    alive: list[torch.Tensor] = []  # so that no address is used twice

    def wrote(norm: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
        assert isinstance(norm, nn.LayerNorm)
        alive.append(out)
        made[out.untyped_storage().data_ptr()] = norm

    def reads(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(layer: nn.Module, args: tuple[Any, ...]) -> None:
            alive.append(args[0])
            read[args[0].untyped_storage().data_ptr()].append(name)

        return see

    norms = [m for m in clip.module.modules() if isinstance(m, nn.LayerNorm) and m.weight is not None]
    handles = [norm.register_forward_hook(wrote) for norm in norms]
    handles += [layer.register_forward_pre_hook(reads(name)) for name, layer in layers.items()]
    try:
        calibration = request.needed()
        if request.scope != "text":
            for images in calibration.batches(clip, 1):
                clip.encode_image(images)
        if request.scope != "vision":
            clip.encode_text(next(iter(calibration.prompt_batches()))[:1])
    finally:
        for handle in handles:
            handle.remove()
    return [Readers(tuple(dict.fromkeys(names)), made.get(at)) for at, names in read.items()]
