"""Observers of what layers read while calibration data pass through the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pytest_qreliab.data.sampling import one_of_each_stretch
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers as engine_layers
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
    calibration = request.require_calibration()
    passes = calibration.text_passes(clip) if request.scope != "vision" else []

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def show(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in observers:
                observers[name] = make(layer)
            observers[name].observe(layer, args[0].detach())

        return show

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(hook(name)))
        if request.scope != "text":
            for images in calibration.batches(clip, request.parameters.images):
                clip.encode_image(images)
        for encode in passes:
            encode()
    return observers


def tokens(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return a layer's input as rows of its channels, (rows, channels)."""
    return (x.movedim(1, -1) if isinstance(layer, nn.Conv2d) else x).flatten(0, -2)


class RowSample:
    """A sample of the rows of a stream of tensors.

    Each row that was seen is in it with equal probability, whatever tensor it came in. The same stream gives the same
    sample, on any device.
    """

    def __init__(self, most: int) -> None:
        self._most, self._seen = most, 0  # rows
        self._rows: torch.Tensor | None = None
        self._rng = np.random.default_rng(0)

    def add(self, rows: torch.Tensor) -> None:
        """See more rows, (n, ...)."""
        self._seen += len(rows)
        share = min(1, self._most / self._seen)
        fresh = self._draw(rows, round(share * len(rows)))
        if self._rows is not None:
            fresh = torch.cat([self._draw(self._rows, self._most - len(fresh)), fresh])
        self._rows = fresh

    def _draw(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        if count >= len(rows):
            return rows.clone()
        return rows[torch.from_numpy(one_of_each_stretch(len(rows), count, self._rng)).to(rows.device)]

    def rows(self) -> torch.Tensor:
        """Return the sample, of one row at least: (rows, ...)."""
        assert self._rows is not None
        return self._rows


class ValueObserver:
    """An observer that keeps the extremes of a layer's inputs, and a random sample of their values."""

    MOST = 32_768

    def __init__(self, layer: nn.Module) -> None:
        self._sample = RowSample(self.MOST)
        self._extremes: list[torch.Tensor] = []

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Keep values of one more input."""
        flat = x.reshape(-1)
        self._sample.add(flat)
        self._extremes = [torch.stack(torch.cat([*self._extremes, torch.stack(flat.aminmax())]).aminmax())]

    def row(self) -> torch.Tensor:
        """Return all values that were kept, (1, n)."""
        return torch.cat([self._sample.rows(), *self._extremes])[None]


class MaxObserver:
    """An observer of the largest magnitude of each input channel."""

    def __init__(self, layer: nn.Module) -> None:
        device = layer.get_parameter("weight").device
        self.largest = torch.zeros((), device=device)  # (channels,) once the layer has read something

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Raise the magnitudes to those of one more input."""
        self.largest = torch.maximum(self.largest, tokens(layer, x).abs().amax(0))


class SampleObserver:
    """An observer that keeps a random sample of inputs: rows, or whole maps of a convolution."""

    ROWS, MAPS = 256, 8

    def __init__(self, layer: nn.Module) -> None:
        self._sample = RowSample(self.MAPS if isinstance(layer, nn.Conv2d) else self.ROWS)

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Keep rows or maps of one more input."""
        self._sample.add(x if isinstance(layer, nn.Conv2d) else x.flatten(0, -2))

    def all(self) -> torch.Tensor:
        """Return the sample, (rows, channels).

        Of a convolution it is (maps, channels, height, width).
        """
        return self._sample.rows()


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


MemoryState = tuple[int, int]
Read = tuple[MemoryState, int, int]  # of the tensor, its channels, and the number of the pass


def memory_state(x: torch.Tensor) -> MemoryState:
    """Return what two tensors have in common that share their memory, with no change of it in between."""
    return x.untyped_storage().data_ptr(), x._version


class _ReadWatch:
    """The hooks that note which tensors layers read, and which norms wrote them."""

    def __init__(self) -> None:
        self.reads: dict[str, list[Read]] = defaultdict(list)  # by layer
        self.sources: dict[str, set[nn.LayerNorm | None]] = defaultdict(set)  # by layer: the norms
        self._passed = 0  # the number of passes
        self._alive: list[torch.Tensor] = []  # so that no address is used twice in a pass
        self._norms: dict[MemoryState, nn.LayerNorm] = {}  # by what they wrote in this pass

    def note_norm(self, norm: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
        assert isinstance(norm, nn.LayerNorm)
        self._alive.append(out)
        self._norms[memory_state(out)] = norm

    def note_reader(self, layer: nn.Module, args: tuple[Any, ...], name: str) -> None:
        x = args[0]
        self._alive.append(x)
        channels = x.shape[1 if isinstance(layer, nn.Conv2d) else -1]
        self.reads[name].append((memory_state(x), channels, self._passed))
        norm = self._norms.get(memory_state(x))
        self.sources[name].add(None if norm is None or norm.weight.numel() != channels else norm)

    def end_pass(self) -> None:
        self._passed += 1
        self._alive.clear()
        self._norms.clear()


def find_shared_inputs(clip: Clip, layers: Mapping[str, nn.Module], request: Request) -> list[SharedInput]:
    """Group layers by what they read.

    A transformation of an input is one for all layers that read it. Four images and four prompts, unlike each other,
    pass one by one: layers are in one group if they read the same tensor each time.

    Args:
        clip: The model.
        layers: The layers to group, by name.
        request: Gives the scope.

    Returns:
        The inputs in the order in which they are read. Layers that nothing reaches are in none.
    """
    watch = _ReadWatch()
    learned = [m for m in clip.module.modules() if isinstance(m, nn.LayerNorm) and m.weight is not None]
    with ExitStack() as hooks:
        for norm in learned:
            hooks.enter_context(norm.register_forward_hook(watch.note_norm))
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(watch.note_reader, name=name)))
        for encode in engine_layers.probe_passes(clip, request.scope):
            encode()
            watch.end_pass()
    groups: dict[tuple[Read, ...], list[str]] = defaultdict(list)
    for name, reads in watch.reads.items():
        groups[tuple(reads)].append(name)
    found = []
    for names in groups.values():
        norms = watch.sources[names[0]]
        found.append(SharedInput(tuple(names), next(iter(norms)) if len(norms) == 1 else None))
    return found
