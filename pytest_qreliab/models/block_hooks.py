"""A look into an image tower while it encodes: the map after every block, and what the last projection reads.

Towers of open_clip (ViT, ModifiedResNet) and timm trunks of stages (ConvNeXt) or blocks (ViT) show theirs; others,
such as ONNX graphs and modules that are not open_clip's, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP

Look = Callable[[torch.Tensor], torch.Tensor]
ToMap = Callable[[torch.Tensor], "torch.Tensor | None"]


@dataclass
class BlockOutputs:
    """Of one batch: what `look` made of the map after each block, first to last, and the penultimate features."""

    blocks: list[torch.Tensor] = field(default_factory=list)
    penultimate: torch.Tensor | None = None

    def clear(self) -> None:
        """To be called before every batch."""
        self.blocks, self.penultimate = [], None


@contextmanager
def watched(clip: Clip, look: Look) -> Iterator[BlockOutputs]:
    """While the model encodes images, `look` is shown each block's map (batch, channels, rows, columns).

    Nothing larger than what it gives is kept.
    """
    seen = BlockOutputs()
    visual: Any = getattr(clip.module, "visual", None)
    with ExitStack() as stack:
        if clip.layout is OPEN_CLIP and isinstance(visual, nn.Module):
            for index, (block, to_map) in enumerate(_blocks(visual)):
                stack.enter_context(block.register_forward_hook(_after(seen, index, to_map, look)))
            stack.enter_context(_penultimate(visual, seen))
        yield seen


def compile_blocks(clip: Clip) -> None:
    """Let torch.compile make the blocks of both towers faster, in place. Raises InputError for a model whose blocks are
    not known."""
    module: Any = clip.module
    blocks: list[Any] = []
    if clip.layout is OPEN_CLIP and isinstance(getattr(module, "visual", None), nn.Module):
        text = getattr(getattr(module, "text", module), "transformer", None)
        blocks = [block for block, _ in _blocks(module.visual)] + list(getattr(text, "resblocks", []))
    if not blocks:
        raise InputError(f"{clip.name}: its blocks are not known, and cannot be compiled; leave --qreliab-compile out")
    from torch._dynamo import config as options  # which takes a second to import

    config: Any = options
    config.recompile_limit = max(config.recompile_limit, 4 * len(blocks))
    config.skip_nnmodule_hook_guards = False  # or a block would be given the code of one that rounds otherwise
    for block in blocks:
        block.compile()


def _after(seen: BlockOutputs, index: int, to_map: ToMap, look: Look) -> Callable[..., None]:
    def hook(block: nn.Module, args: Any, out: Any) -> None:
        if len(seen.blocks) != index or not isinstance(out, torch.Tensor):
            return  # local features run the last block once more, patch by patch
        maps = to_map(out.detach())
        if maps is not None:
            seen.blocks.append(look(maps))

    return hook


def _blocks(visual: Any) -> list[tuple[nn.Module, ToMap]]:
    """The blocks of a tower, and what makes a map of their output."""
    trunk: Any = getattr(visual, "trunk", None)
    if hasattr(visual, "attnpool"):
        stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
        return [(stage, _spatial) for stage in stages]
    if hasattr(visual, "transformer") and hasattr(visual, "patch_size"):
        transformer = visual.transformer

        def of_tokens(x: torch.Tensor) -> torch.Tensor | None:
            return _square(x if transformer.batch_first else x.transpose(0, 1), 1, visual.grid_size)

        return [(block, of_tokens) for block in transformer.resblocks]
    if hasattr(trunk, "stages"):
        return [(stage, _spatial) for stage in trunk.stages]
    if hasattr(trunk, "blocks") and hasattr(getattr(trunk, "patch_embed", None), "grid_size"):
        prefix, grid = int(getattr(trunk, "num_prefix_tokens", 0)), trunk.patch_embed.grid_size
        return [(block, lambda x: _square(x, prefix, grid)) for block in trunk.blocks]
    return []


def _spatial(x: torch.Tensor) -> torch.Tensor | None:
    return x if x.ndim == 4 else None


def _square(tokens: torch.Tensor, prefix: int, grid: tuple[int, int]) -> torch.Tensor | None:
    """Tokens (batch, prefix + patches, channels) as a map; None if there are others than one for each patch."""
    if tokens.ndim != 3 or tokens.shape[1] != prefix + grid[0] * grid[1]:
        return None
    return tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, *grid)


@contextmanager
def _penultimate(visual: Any, seen: BlockOutputs) -> Iterator[None]:
    """Keeps what the last projection of each batch reads; of a tower without one, that is the features."""
    if isinstance(getattr(visual, "head", None), nn.Module):  # of a timm trunk

        def reads(head: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen.penultimate = args[0].detach()

        with visual.head.register_forward_pre_hook(reads):
            yield
    elif hasattr(visual, "_pool"):
        pool = visual._pool

        def pooled(x: torch.Tensor) -> Any:
            found = pool(x)
            if seen.penultimate is None:  # local features are pooled after it
                seen.penultimate = found[0].detach()
            return found

        visual._pool = pooled
        try:
            yield
        finally:
            del visual._pool
    else:
        yield
