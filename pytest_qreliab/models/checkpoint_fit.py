"""Hold a checkpoint against the architecture that it is to be loaded into, by the shapes of some of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.local_models import LocalModel

IMAGE_POSITIONS, TEXT_POSITIONS = "visual.positional_embedding", "positional_embedding"
BLOCK = re.compile(r"^visual\.transformer\.resblocks\.(\d+)\.")


def check_fit(model: LocalModel) -> tuple[str, ...]:
    """Return a warning for each of the position embeddings that open_clip resizes at loading.

    Raises:
        InputError: The checkpoint is of another architecture.
    """
    vision, text = model.model_config["vision_cfg"], model.model_config["text_cfg"]
    if "timm_model_name" in vision or isinstance(vision.get("layers", 12), list):
        vision = {}
    if "hf_model_name" in text:
        text = {}
    warnings: list[str] = []
    shapes = model.checkpoint.shapes
    of_text = "text." if f"text.{TEXT_POSITIONS}" in shapes else ""
    expected = {
        **(_of_vision(model) if vision else {}),
        **{f"{of_text}{name}": shape for name, shape in _of_text(text).items()},
    }
    for name, wanted in expected.items():
        found = shapes.get(name, wanted)
        positions = name in (IMAGE_POSITIONS, f"{of_text}{TEXT_POSITIONS}")
        if found == wanted:
            continue
        if not positions or found[1:] != wanted[1:] or (name == IMAGE_POSITIONS and not _square(found[0] - 1)):
            raise InputError(
                f"model {model.name!r}: checkpoint {model.path} is of another architecture: its {name} is {found}, "
                f"and {wanted} is needed"
            )
        warnings.append(f"model {model.name!r}: {_resized(name, found[0], model)}")
    blocks = {int(block[1]) for block in map(BLOCK.match, shapes) if block}
    if vision and blocks and len(blocks) != vision.get("layers", 12):
        raise InputError(
            f"model {model.name!r}: checkpoint {model.path} is of another architecture: its image tower has "
            f"{len(blocks)} blocks, and {vision.get('layers', 12)} are needed"
        )
    return tuple(warnings)


def _of_vision(model: LocalModel) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a vision transformer of open_clip."""
    width, patch = model.model_config["vision_cfg"].get("width", 768), model.patch_size
    rows, columns = (side // step for side, step in zip(model.image_size, patch, strict=True))
    return {"visual.conv1.weight": (width, 3, *patch), IMAGE_POSITIONS: (rows * columns + 1, width)}


def _of_text(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    if not config:
        return {}
    width, length = config.get("width", 512), config.get("context_length", 77) + bool(config.get("embed_cls"))
    return {"token_embedding.weight": (config.get("vocab_size", 49408), width), TEXT_POSITIONS: (length, width)}


def _square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def _resized(name: str, rows: int, model: LocalModel) -> str:
    if name != IMAGE_POSITIONS:
        return (
            f"its checkpoint has position embeddings for texts of {rows} tokens; they are resized to "
            f"{model.context_length}, which changes the model"
        )
    patch, (height, width) = model.patch_size, model.image_size
    side = math.isqrt(rows - 1)
    return (
        f"its checkpoint has position embeddings for images of {side * patch[0]} x {side * patch[1]} pixels; they are "
        f"resized to {height} x {width}, which changes the model"
    )
