"""Look into an image tower while it encodes: at the map after every block, and at the input of the last projection.

Towers of open_clip (ViT, ModifiedResNet) and timm trunks of stages (ConvNeXt) or blocks (ViT) show their maps. Others,
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
    """The outputs of the image tower's blocks in one batch."""

    blocks: list[torch.Tensor] = field(default_factory=list)  # the results of `look` for each block, first to last
    penultimate: torch.Tensor | None = None  # the input of the last projection, (batch, width)

    def clear(self) -> None:
        """Forget the last batch, which is needed before every other."""
        self.blocks, self.penultimate = [], None


@contextmanager
def watch_blocks(clip: Clip, look: Look) -> Iterator[BlockOutputs]:
    """Show each block's map to a function while the model encodes images.

    Only the results of the function are kept.

    Args:
        clip: The model.
        look: Takes a map (batch, channels, rows, columns).

    Yields:
        The outputs of the last batch; call `clear` before each.
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
    """Let torch.compile make the blocks of both towers faster, in place.

    Raises:
        InputError: The blocks of the model are not known.
    """
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
    """Return the blocks of a tower, and for each the function that makes a map of its output."""
    trunk: Any = getattr(visual, "trunk", None)
    if hasattr(visual, "attnpool"):
        stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
        return [(stage, _spatial) for stage in stages]
    if hasattr(visual, "transformer") and hasattr(visual, "patch_size"):
        transformer = visual.transformer

        def to_map(x: torch.Tensor) -> torch.Tensor | None:
            return _square(x if transformer.batch_first else x.transpose(0, 1), 1, visual.grid_size)

        return [(block, to_map) for block in transformer.resblocks]
    if hasattr(trunk, "stages"):
        return [(stage, _spatial) for stage in trunk.stages]
    if hasattr(trunk, "blocks") and hasattr(getattr(trunk, "patch_embed", None), "grid_size"):
        prefix, grid = int(getattr(trunk, "num_prefix_tokens", 0)), trunk.patch_embed.grid_size
        return [(block, lambda x: _square(x, prefix, grid)) for block in trunk.blocks]
    return []


def _spatial(x: torch.Tensor) -> torch.Tensor | None:
    return x if x.ndim == 4 else None


def _square(tokens: torch.Tensor, prefix: int, grid: tuple[int, int]) -> torch.Tensor | None:
    """Return tokens (batch, prefix + patches, channels) as a map; None if there is not one for each patch."""
    if tokens.ndim != 3 or tokens.shape[1] != prefix + grid[0] * grid[1]:
        return None
    return tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, *grid)


@contextmanager
def _penultimate(visual: Any, seen: BlockOutputs) -> Iterator[None]:
    """Keep the input of the last projection, which is the features in a tower without one."""
    if isinstance(getattr(visual, "head", None), nn.Module):  # a timm trunk

        def reads(head: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen.penultimate = args[0].detach()

        with visual.head.register_forward_pre_hook(reads):
            yield
    elif hasattr(visual, "_pool"):
        pool = visual._pool

        def pooled(x: torch.Tensor) -> Any:
            result = pool(x)
            if seen.penultimate is None:  # local features are pooled after it
                seen.penultimate = result[0].detach()
            return result

        visual._pool = pooled
        try:
            yield
        finally:
            del visual._pool
    else:
        yield
