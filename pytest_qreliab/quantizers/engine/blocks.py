"""Walk through the towers block by block, with each block's inputs in hand.

A block can be observed, changed and run by itself. Its inputs are what the blocks before it return as they are by then:
quantized ones hand on quantized inputs. All in all the walk takes the calibration data through each block once, besides
what is done with its inputs. Layers that are in no block are met as well, by way of the whole model, which takes
longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from pytest_qreliab.data.batches import BATCH
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import trunk
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.observers import ObserverT
from pytest_qreliab.quantizers.engine.trunk import Link, Stage
from pytest_qreliab.quantizers.request import Request

Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # the arguments of a call
Forward = Callable[[], object]  # takes one batch through a tower


class _Reached(BaseException):  # no Exception, which the user's own code may catch
    """The signal that what is looked for was seen, so that the rest of the model need not run."""


class TowerBlock:
    """A module with the inputs that the calibration data bring it."""

    def __init__(self, stage: Stage, layers: Layers, inputs: list[Inputs]) -> None:
        self.name, self.module = stage.name, stage.module
        self.groups = stage.groups  # the names of its layers, in the order in which they read
        self.inputs = inputs  # a batch each
        self.layers: Layers = {name: layers[name] for names in stage.groups for name in names}
        self._calls = stage.calls
        self._outputs: list[Any] | None = None

    def run(self, place: int) -> Any:
        """Return the output of the block, as it is now, for a batch."""
        args, kwargs = self.inputs[place]
        return self.module(*args, **kwargs)

    def outputs(self) -> list[Any]:
        """Return the outputs for all batches, of the block as it was when this was first called."""
        if self._outputs is None:
            with torch.no_grad():
                self._outputs = [self.run(place) for place in range(len(self.inputs))]
        return self._outputs

    @torch.no_grad()
    def observe(self, names: Sequence[str], make: Callable[[nn.Module], ObserverT]) -> dict[str, ObserverT]:
        """Show what layers of the block read to observers.

        Args:
            names: The layers. The block runs up to the last of them.
            make: Makes the observer of a layer.

        Returns:
            An observer for each of these layers that is reached, by name.
        """
        observers: dict[str, ObserverT] = {}
        left = 0

        def show(layer: nn.Module, args: tuple[Any, ...], name: str) -> None:
            nonlocal left
            if name not in observers:
                observers[name] = make(layer)
            observers[name].observe(layer, args[0])
            left -= 1
            if left == 0:
                raise _Reached

        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self.layers[name].register_forward_pre_hook(partial(show, name=name)))
            for place in range(len(self.inputs)):
                left = sum(self._calls[name] for name in names)
                with suppress(_Reached):
                    self.run(place)
        return observers

    @torch.no_grad()
    def hand_on(self, link: Link) -> list[Inputs]:
        """Turn the inputs into those of the next block, in place, to keep no more than one set of them."""
        for place, (args, kwargs) in enumerate(self.inputs):
            output = self.run(place) if self._outputs is None else self._outputs[place]
            value = output[0] if isinstance(output, tuple | list) else output
            for module in link.through:
                value = module(value)
            further = dict(enumerate(args)) | kwargs
            positional = [further[key] for key in link.further if isinstance(key, int)]
            named = {key: further[key] for key in link.further if isinstance(key, str)}
            self.inputs[place] = (value, *positional), named
        return self.inputs


def walk(clip: Clip, layers: Layers, request: Request, size: int = BATCH) -> Iterator[TowerBlock]:
    """Yield the blocks of the towers in scope, in the order in which they run.

    Args:
        clip: The model, which may be changed between blocks: a block that was yielded is run as it is when the next one
            is asked for.
        layers: Its layers by name. Every one that images or prompts reach is in one block; a layer that both towers
            call is a block by itself, before all others.
        request: Gives the scope, and the calibration data.
        size: The most images, or prompts, of a batch.

    Yields:
        Blocks, of which only the last may be used.
    """
    towers = {name: _Tower(_forwards(clip, name, request, size)) for name in ("vision", "text")}
    stages = {
        name: trunk.find_stages(clip.module, layers, trunk.tower_probes(clip, name))
        for name in towers
        if request.scope in (name, "both")
    }
    met = Counter(layer for found in stages.values() for layer in {name for stage in found for name in stage.calls})
    shared = {name for name, count in met.items() if count > 1}
    for name in shared:
        alone = _alone(name, layers)
        yield TowerBlock(alone, layers, [inputs for tower in towers.values() for inputs in tower.capture(alone)])
    for name, found in stages.items():
        for block in towers[name].walk([stage.without(shared) for stage in found], layers):
            if block.layers:
                yield block


def _alone(name: str, layers: Layers) -> Stage:
    """Return a layer as a stage that may be called any number of times."""
    return Stage(name=name, module=layers[name], groups=((name,),), calls={name: 0}, trunk=False)


def _forwards(clip: Clip, tower: str, request: Request, size: int) -> list[Forward]:
    """Return what takes each batch of the calibration data through a tower."""
    calibration = request.require_calibration()
    if request.scope not in (tower, "both"):
        return []
    if tower == "text":
        return list(calibration.text_passes(clip, size))
    images = calibration.batches(clip, request.parameters.images)
    return [partial(clip.encode_image, part) for batch in images for part in torch.split(batch, size)]


class _Tower:
    """A tower whose finished blocks return what they are known to return."""

    def __init__(self, forwards: list[Forward]) -> None:
        self._forwards = forwards
        self._known: dict[nn.Module, list[Any] | None] = {}  # outputs by batch; None: nothing depends on them

    def walk(self, stages: Sequence[Stage], layers: Layers) -> Iterator[TowerBlock]:
        """Yield the blocks of the tower."""
        block: TowerBlock | None = None  # the one before, if its outputs are to be handed on
        for stage in stages:
            if block is not None and stage.link is not None:
                self._known |= dict.fromkeys((block.module, *stage.link.through))
                inputs = block.hand_on(stage.link)
            else:
                if block is not None:
                    self._known[block.module] = block.outputs()
                inputs = self.capture(stage)
            if stage.trunk and len(inputs) == len(self._forwards):
                block = TowerBlock(stage, layers, inputs)
                yield block
                continue
            # A layer of no block, or a block that not all batches come to, as the probes did.
            block = None
            for name in stage.calls:
                alone = _alone(name, layers)
                yield TowerBlock(alone, layers, self.capture(alone))

    @torch.no_grad()
    def capture(self, stage: Stage) -> list[Inputs]:
        """Return the inputs of a module while the model runs, of all batches that come to it."""
        found: list[Inputs] = []

        def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if stage.trunk:
                found.append((args, kwargs))
                raise _Reached
            # The model goes on, and may change what was read.
            found.append((tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in args), kwargs))

        with stage.module.register_forward_pre_hook(take, prepend=True, with_kwargs=True):
            for place, forward in enumerate(self._forwards):
                with suppress(_Reached), self._replaced(place):
                    forward()
        return found

    @contextmanager
    def _replaced(self, place: int) -> Iterator[None]:
        """Let finished blocks return what is known of a batch."""
        own = {module: vars(module).get("forward") for module in self._known}
        try:
            for module, outputs in self._known.items():
                vars(module)["forward"] = partial(_return, known=None if outputs is None else outputs[place])
            yield
        finally:
            for module, forward in own.items():
                del vars(module)["forward"]
                if forward is not None:
                    vars(module)["forward"] = forward


def _return(x: Any, *args: Any, known: Any, **kwargs: Any) -> Any:
    """Return what is known, or else the input."""
    return x if known is None else known
