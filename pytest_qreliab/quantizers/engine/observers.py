"""Observers of what layers read while calibration data pass through the model."""

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
    """An object that is shown every input of one layer."""

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Take note of what the layer is about to read."""


ObserverT = TypeVar("ObserverT", bound=Observer)


def observe(
    clip: Clip, layers: Mapping[str, nn.Module], request: Request, make: Callable[[nn.Module], ObserverT]
) -> dict[str, ObserverT]:
    """Show the inputs of layers to observers while the calibration data pass.

    Args:
        clip: The model.
        layers: The layers to observe, by name.
        request: Gives the calibration data, the scope and the number of images.
        make: Makes the observer of a layer.

    Returns:
        An observer for each layer that the calibration images and prompts reach, by name.

    Raises:
        ValueError: The request has no calibration data.
    """
    observers: dict[str, ObserverT] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def show(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in observers:
                observers[name] = make(layer)
            observers[name].observe(layer, args[0].detach())

        return show

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
    """Return a layer's input as rows of its channels, (rows, channels)."""
    return (x.movedim(1, -1) if isinstance(layer, nn.Conv2d) else x).flatten(0, -2)


class ValueObserver:
    """An observer that keeps values of each input.

    They are its extremes and at most 8,192 evenly spaced values.
    """

    EACH = 8_192

    def __init__(self, layer: nn.Module) -> None:
        self._kept: list[torch.Tensor] = []

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Keep values of one more input."""
        flat = x.reshape(-1)
        self._kept += [flat[:: -(-len(flat) // self.EACH)].clone(), torch.stack(flat.aminmax())]

    def row(self) -> torch.Tensor:
        """Return all values that were kept, (1, n)."""
        return torch.cat(self._kept)[None]


class MaxObserver:
    """An observer of the largest magnitude of each input channel."""

    def __init__(self, layer: nn.Module) -> None:
        device = layer.get_parameter("weight").device
        self.largest = torch.zeros((), device=device)  # (channels,) once the layer has read something

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Raise the magnitudes to those of one more input."""
        self.largest = torch.maximum(self.largest, tokens(layer, x).abs().amax(0))


class SampleObserver:
    """An observer that keeps a sample of inputs.

    It is some 128 evenly spaced rows of each call, or 8 whole maps of a convolution.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._kept: list[torch.Tensor] = []

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Keep rows or maps of one more input."""
        rows, most = (x, 8) if isinstance(layer, nn.Conv2d) else (x.flatten(0, -2), 128)
        self._kept.append(rows[:: -(-len(rows) // most)].clone())

    def all(self) -> torch.Tensor:
        """Return the sample, (rows, channels).

        Of a convolution it is (maps, channels, height, width).
        """
        return torch.cat(self._kept)


def output(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the output of a layer with another weight.

    Its bias and its hooks are left out.

    Args:
        layer: A Linear or a convolution.
        x: An input of the layer.
        weight: A weight in the shape of the layer's own.
    """
    if isinstance(layer, nn.Conv2d):
        result: torch.Tensor = layer._conv_forward(x, weight, None)
        return result
    return F.linear(x, weight)


@dataclass(frozen=True)
class SharedInput:
    """A tensor that one or more layers read."""

    layers: tuple[str, ...]  # their names
    norm: nn.LayerNorm | None  # the norm with learned weights that the tensor comes from, if any


def find_shared_inputs(clip: Clip, layers: Mapping[str, nn.Module], request: Request) -> list[SharedInput]:
    """Group layers by what they read.

    A transformation of an input is one for all layers that read it.

    Args:
        clip: The model.
        layers: The layers to group, by name.
        request: Gives the scope, and the calibration data for one image and one prompt.

    Returns:
        The inputs in the order in which they are read. Layers that nothing reaches are in none.

    Raises:
        ValueError: The request has no calibration data.
    """
    norms: dict[int, nn.LayerNorm] = {}
    readers: dict[int, list[str]] = defaultdict(list)
    alive: list[torch.Tensor] = []  # so that no address is used twice

    def note_norm(norm: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
        assert isinstance(norm, nn.LayerNorm)
        alive.append(out)
        norms[out.untyped_storage().data_ptr()] = norm

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note_reader(layer: nn.Module, args: tuple[Any, ...]) -> None:
            alive.append(args[0])
            readers[args[0].untyped_storage().data_ptr()].append(name)

        return note_reader

    learned = [m for m in clip.module.modules() if isinstance(m, nn.LayerNorm) and m.weight is not None]
    handles = [norm.register_forward_hook(note_norm) for norm in learned]
    handles += [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
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
    return [SharedInput(tuple(dict.fromkeys(names)), norms.get(address)) for address, names in readers.items()]
