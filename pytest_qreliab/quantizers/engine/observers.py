"""Observe what layers read while calibration data pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.request import Request


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
        calibration = request.require_calibration()
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


class ValueObserver:
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


class MaxObserver:
    """The largest magnitude of each input channel, (channels,)."""

    def __init__(self, layer: nn.Module) -> None:
        self.largest: torch.Tensor | None = None

    def see(self, layer: nn.Module, x: torch.Tensor) -> None:
        seen = tokens(layer, x).abs().amax(0)
        self.largest = seen if self.largest is None else torch.maximum(self.largest, seen)


class SampleObserver:
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
class SharedInput:
    """Layers that read one and the same tensor, and the norm with learned weights that made it, if one did."""

    names: tuple[str, ...]
    norm: nn.LayerNorm | None


def readers(clip: Clip, layers: Mapping[str, nn.Module], request: Request) -> list[SharedInput]:
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
        calibration = request.require_calibration()
        if request.scope != "text":
            for images in calibration.batches(clip, 1):
                clip.encode_image(images)
        if request.scope != "vision":
            clip.encode_text(next(iter(calibration.prompt_batches()))[:1])
    finally:
        for handle in handles:
            handle.remove()
    return [SharedInput(tuple(dict.fromkeys(names)), made.get(at)) for at, names in read.items()]
