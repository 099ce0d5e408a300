"""How torchao and bitsandbytes store a quantized weight.

It is read from the tensors, without importing either library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn


@dataclass(frozen=True)
class PackedFormat:
    """The format of a weight in a library's own storage."""

    elements: int
    bits: int  # of each element
    activations: int | None  # the width that the layer's input is rounded to; None: it is not rounded


def is_library_tensor(tensor: object) -> bool:
    """Return whether a tensor is one of torchao or bitsandbytes."""
    return isinstance(tensor, torch.Tensor) and _package(tensor) in ("torchao", "bitsandbytes")


def layer_format(layer: nn.Module) -> PackedFormat | None:
    """Return the format of a layer's weight, or None.

    None stands for an ordinary weight, and for one in no known format.
    """
    weight: Any = layer._parameters.get("weight")
    if not is_library_tensor(weight):
        return None
    if _package(weight) == "torchao":
        return torchao_format(weight)
    if _package(layer) != "bitsandbytes":  # its parameters mean nothing to another layer
        return None
    elements = int(cast(Any, layer).in_features * cast(Any, layer).out_features)
    if weight.dtype == torch.int8:  # LLM.int8() rounds the input too, per row, at every call
        return PackedFormat(elements, 8, 8)
    packed = getattr(weight, "bnb_quantized", False) and weight.numel() == (elements + 1) // 2
    if weight.dtype == torch.uint8 and packed:
        return PackedFormat(elements, 4, None)
    return None


def torchao_format(weight: Any) -> PackedFormat | None:
    """Return the format of a tensor of torchao; None if unknown.

    The stored numbers count, and not only what the tensor says of itself.
    """
    codes = getattr(weight, "qdata", None)
    if codes is None:
        return None
    rounds_input = any(
        getattr(weight, name, None) is not None for name in ("act_quant_kwargs", "activation_quantization")
    )
    narrow = re.fullmatch(r"torch\.u?int([1-8])", str(getattr(weight, "target_dtype", codes.dtype)))
    if "Int4" in type(weight).__name__:  # packed, two in a byte or eight in an int32
        bits = 4
    elif codes.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        bits = 8
    elif narrow is not None and int(codes.max()) - int(codes.min()) < 2 ** int(narrow[1]):
        bits = int(narrow[1])
    else:
        return None
    return PackedFormat(weight.numel(), bits, 8 if rounds_input else None)


def _package(thing: object) -> str:
    return type(thing).__module__.partition(".")[0]
