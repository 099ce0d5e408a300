"""The size of a model in bytes: every weight by the bits that it really takes, whatever this machine stores it in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.onnx_towers import OnnxClip
from pytest_qreliab.quantizers.engine import grid, packed_weights
from pytest_qreliab.quantizers.engine.grid import Granularity
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph

SCALE = 4  # bytes of the float32 scale that weights on one grid share


def of_model(clip: Clip, rounded: Mapping[str, int] | None = None, granularity: Granularity = "channel") -> int:
    """Bytes of all parameters of both towers.

    `rounded` gives the bits of the weights that lie on grids, by name: each takes those, and every grid one float32
    scale. Tensors of torchao and bitsandbytes take the bits that they declare, and their scales; ONNX graphs the types
    of their initializers. What transforms or rounds activations is not counted: folded into norms and weights, or
    a number for each layer.
    """
    rounded = rounded or {}
    module: nn.Module = clip.module
    size = 0.0
    if isinstance(module, OnnxClip):
        size += sum(_of_graph(Graph(tower.graph())) for tower in module.towers().values())
    for name, parameter in module.named_parameters():
        if packed_weights.is_library_tensor(parameter):
            layer = module.get_submodule(name.rpartition(".")[0])
            size += _of_library(parameter, packed_weights.of_layer(layer) if name.endswith(".weight") else None)
        elif name in rounded:
            size += parameter.numel() * rounded[name] / 8 + len(grid.rows(parameter, granularity)) * SCALE
        else:
            size += parameter.numel() * parameter.element_size()
    return math.ceil(size)


def _of_library(tensor: torch.Tensor, stored: packed_weights.PackedFormat | None) -> float:
    inner = _inner(tensor)
    if stored is None:
        return sum(part.numel() * part.element_size() for part in inner)
    codes = max(inner, key=torch.Tensor.numel)
    scales = sum(part.numel() * part.element_size() for part in inner if part is not codes)
    return stored.elements * stored.bits / 8 + scales


def _inner(tensor: Any) -> list[torch.Tensor]:
    """What a library's tensor is made of: the codes, and what they are scaled by."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao
        return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    state = getattr(tensor, "quant_state", None)  # bitsandbytes, of 4 bits
    nested = [state, getattr(state, "state2", None)]
    scales = [getattr(of, "absmax", None) for of in nested] + [getattr(tensor, "SCB", None)]
    return [tensor.data, *(scale for scale in scales if isinstance(scale, torch.Tensor))]


def _of_graph(graph: Graph) -> float:
    sizes = (math.prod(tensor.dims) * graph.bits_of(tensor) / 8 for tensor in graph.initializers.values())
    return float(sum(sizes))
