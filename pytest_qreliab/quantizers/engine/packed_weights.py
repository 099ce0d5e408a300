"""How torchao and bitsandbytes keep a quantized weight, read from the tensors themselves; imports neither."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn


@dataclass(frozen=True)
class PackedFormat:
    """A weight of so many `elements`, in `bits` each; `activations` is None where the layer's input is not rounded."""

    elements: int
    bits: int
    activations: int | None


def is_library_tensor(tensor: object) -> bool:
    """Whether it is one of torchao's tensor subclasses, or a parameter of bitsandbytes."""
    return isinstance(tensor, torch.Tensor) and _package(tensor) in ("torchao", "bitsandbytes")


def of_layer(layer: nn.Module) -> PackedFormat | None:
    """How a library keeps this layer's weight; None where it is an ordinary one, or in no known format."""
    weight: Any = layer._parameters.get("weight")
    if not is_library_tensor(weight):
        return None
    if _package(weight) == "torchao":
        return of_tensor(weight)
    if _package(layer) != "bitsandbytes":  # its parameters mean nothing to another layer
        return None
    elements = int(cast(Any, layer).in_features * cast(Any, layer).out_features)
    if weight.dtype == torch.int8:  # LLM.int8() rounds the input too, per row, at every call
        return PackedFormat(elements, 8, 8)
    if (
        weight.dtype == torch.uint8
        and getattr(weight, "bnb_quantized", False)
        and weight.numel() == (elements + 1) // 2
    ):
        return PackedFormat(elements, 4, None)
    return None


def of_tensor(weight: Any) -> PackedFormat | None:
    """How torchao keeps a weight: its own data are looked at, not only what it says of itself."""
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


def _package(of: object) -> str:
    return type(of).__module__.partition(".")[0]
