"""`omniquant`: learned clipping and learned scales, block by block (Shao et al. 2024, arXiv 2308.13137).

Two copies of the model are walked through together. One stays in full precision. A block of the other reads what the
quantized blocks before it return, and learns to return what its twin returns on the way of full precision. Weights are
frozen. Learned are the ends of their ranges, and the scale and the shift of what a norm or an attention hands to the
layer after it. The scales start as SmoothQuant's, the shifts at the middle of each channel. Layers that are a block by
themselves, as a patch embedding or a projection, stay in full precision with the authors; here `gptq` rounds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from timm.layers.attention import Attention as TimmAttention
from torch import nn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import blocks, grid, input_quantizer, observers
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.blocks import TowerBlock
from pytest_qreliab.quantizers.engine.layers import Layers
from pytest_qreliab.quantizers.engine.unpack import Attention, AttentionPool2d
from pytest_qreliab.quantizers.parameters import Gptq
from pytest_qreliab.quantizers.post_training import gptq, procedure, smoothing
from pytest_qreliab.quantizers.request import Request
from pytest_qreliab.quantizers.training import loop
from pytest_qreliab.quantizers.training.checkpoint import Checkpoint, TrainingState, run_key
from pytest_qreliab.quantizers.training.clipping import ClippedWeight, LearnedTransform, ShiftedBias
from pytest_qreliab.quantizers.training.learned import StraightThrough
from pytest_qreliab.quantizers.training.pairs import draw, load
from pytest_qreliab.quantizers.training.parametrize import attach, bake, trainable

ALPHA = 0.5  # SmoothQuant's, of the first scales


def omniquant(full: Clip, request: Request) -> Clip:
    """Return a copy with OmniQuant's clipping and scales, trained block by block towards full-precision outputs.

    Args:
        full: The full-precision model, which is left as it is.
        request: What is asked for. Its steps are those of each block.

    Raises:
        InputError: The model has NaN or infinity, or the loss becomes so.
    """
    clip, layers, request = engine_layers.prepare_layers(full, request)
    twin, _ = engine_layers.unpack_layers(full, request.scope)
    for model in (clip, twin):
        model.module.requires_grad_(False)  # but for what is attached
    twins = {name: twin.module.get_submodule(name) for name in layers}
    transformed = _transformed(clip, layers, request)
    key = None
    if request.checkpoints is not None:
        key = request.checkpoints / run_key(full, request, "omniquant", load(full, request, "features"))
    left, done, size = dict(layers), 0, request.parameters.batch
    walks = (blocks.walk(twin, twins, request, size), blocks.walk(clip, layers, request, size))
    for place, (wanted, block) in enumerate(zip(*walks, strict=True)):
        if len(block.layers) == 1:
            _round_inputs(block, request)
            reached = gptq.round_block(block, request, Gptq().damping)
        else:
            reached = list(block.layers)
            _attach(block, wanted, transformed, request)
            _round_inputs(block, request)
            if block.inputs:
                _train(BlockObjective.build(clip, request, block, wanted), key and key.with_suffix(f".{place}.pt"))
        bake(block.layers)
        for name in reached:
            del left[name]
        now = request.parameters.steps * (len(layers) - len(left)) // len(layers)
        request.advance(now - done)
        done = now
    with torch.no_grad():
        procedure.nearest(grid.mse)(clip, left, request)  # what no calibration data reach
    request.advance(request.parameters.steps - done)
    return clip


def _transformed(clip: Clip, layers: Layers, request: Request) -> list[tuple[str, ...]]:
    """Return the layers that get a scale and a shift, those of one input together.

    They read what a norm writes, or what attention makes of the values: there, a deployed model has the scale and the
    shift in the weights that are before.
    """
    names = {layer: name for name, layer in layers.items()}
    found = [shared.layers for shared in observers.find_shared_inputs(clip, layers, request) if shared.norm is not None]
    for module in clip.module.modules():
        outlet = _attention_output(module)
        if outlet in names:
            found.append((names[outlet],))
    return found


def _attention_output(module: Any) -> nn.Module | None:
    """Return the layer that reads the output of an attention module, if it is one that is known."""
    if isinstance(module, Attention):
        return module.out_proj
    if isinstance(module, AttentionPool2d):
        return cast(nn.Module, module.c_proj)
    plain = isinstance(module, TimmAttention) and module.gate is None and isinstance(module.norm, nn.Identity)
    return module.proj if plain else None


class _ChannelRanges:
    """The observer of the lowest and the highest value of each input channel."""

    def __init__(self, layer: nn.Module) -> None:
        self.ends: tuple[torch.Tensor, torch.Tensor] | None = None

    def observe(self, layer: nn.Module, x: torch.Tensor) -> None:
        """Widen the ranges to those of one more input."""
        low, high = observers.tokens(layer, x).aminmax(dim=0)
        if self.ends is not None:
            low, high = torch.minimum(low, self.ends[0]), torch.maximum(high, self.ends[1])
        self.ends = low, high


@torch.no_grad()
def _attach(block: TowerBlock, wanted: TowerBlock, transformed: Sequence[tuple[str, ...]], request: Request) -> None:
    """Put what is learned on the layers of a block.

    Args:
        block: The block that is to be quantized.
        wanted: The same block in full precision, with inputs in full precision.
        transformed: The layers that get a scale and a shift, those of one input together.
        request: Gives the formats.
    """
    layers = block.layers
    groups = [inside for names in transformed if (inside := tuple(name for name in names if name in layers))]
    ranges = wanted.observe([name for names in groups for name in names], _ChannelRanges) if groups else {}
    transforms: dict[str, LearnedTransform] = {}
    for names in groups:
        if names[0] in ranges:
            learned = _first_transform([layers[name] for name in names], ranges[names[0]].ends)
            transforms |= dict.fromkeys(names, learned)
    for name, layer in layers.items():
        transform = transforms.get(name)
        if transform is not None:
            input_quantizer.ensure_input_quantizer(layer).transform = transform
            if transform.moved is not None:
                if layer.bias is None:
                    layer.bias = nn.Parameter(layer.get_parameter("weight").new_zeros(len(layer.weight)))
                attach(layer, "bias", ShiftedBias(layer, transform), train=False)
        attach(layer, "weight", ClippedWeight(layer, request.weight_scheme(name), transform), train=False)


@torch.no_grad()
def _round_inputs(block: TowerBlock, request: Request) -> None:
    """Round what the layers of a block read, over the range that the block's own inputs bring if it is static."""
    rounds, schemes = procedure.split_ranges(block.layers, request)
    if schemes:
        for name, seen in block.observe(list(schemes), observers.ValueObserver).items():
            low, high = grid.mse(seen.row(), schemes[name])
            rounds[name] = input_quantizer.from_bounds(schemes[name], low[0, 0], high[0, 0])
    for name, rounding in rounds.items():
        input_quantizer.ensure_input_quantizer(block.layers[name]).round = StraightThrough(rounding)


def _first_transform(layers: Sequence[nn.Module], ends: Any) -> LearnedTransform:
    """Return the transformation of what layers read, with the scale of SmoothQuant at the start."""
    shift = not any(any(getattr(layer, "padding", ())) for layer in layers)
    low, high = ends
    largest = torch.maximum(low.abs(), high.abs()).clamp(min=smoothing.SMALLEST)
    weight = smoothing.largest_per_input(layers).clamp(min=smoothing.SMALLEST)
    return LearnedTransform(low, high, largest**ALPHA / weight ** (1 - ALPHA), shift=shift)


@dataclass(frozen=True, kw_only=True)
class BlockObjective:
    """The loss of a block: the squared distance of its outputs from those of full precision."""

    student: Clip
    request: Request
    block: TowerBlock
    targets: Sequence[torch.Tensor]  # the outputs in full precision, a batch each

    @classmethod
    def build(cls, clip: Clip, request: Request, block: TowerBlock, wanted: TowerBlock) -> BlockObjective:
        """Compute the outputs in full precision. Raises InputError if they hold NaN or infinity."""
        targets = [_first(output) for output in wanted.outputs()]
        if not all(bool(target.isfinite().all()) for target in targets):
            raise InputError(
                f"{clip.name}: NaN or infinity in the full-precision outputs of {block.name}: nothing to train to"
            )
        # Steps are counted over all blocks.
        return cls(student=clip, request=replace(request, advance=lambda done: None), block=block, targets=targets)

    def __call__(self, step: int) -> torch.Tensor:
        """Return the loss of the batch of a step."""
        place = int(draw(len(self.targets), 1, self.request.parameters.seed, step))
        return (_first(self.block.run(place)) - self.targets[place]).square().mean()


def _first(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return found


def _train(objective: BlockObjective, path: Path | None) -> None:
    """Train what is attached to a block, from its checkpoint on if there is one."""
    tensors = trainable(objective.block.module, objective.block.layers)
    checkpoint = None if path is None else Checkpoint(path)
    state = TrainingState() if checkpoint is None else checkpoint.load(tensors)
    if state.done < objective.request.parameters.steps:
        with torch.enable_grad():
            loop.train(objective, tensors, state, checkpoint)
