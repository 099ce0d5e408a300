"""The size of a model in bytes.

A weight counts by the bits that it needs, and not by what this machine stores it in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pytest_qreliab.config.formats import Format
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.onnx_towers import OnnxClip
from pytest_qreliab.quantizers.engine import grid, packed_weights
from pytest_qreliab.quantizers.engine.grid import Granularity
from pytest_qreliab.quantizers.libraries.onnx_graph import Graph

SCALE = 4  # bytes of the float32 scale that weights on one grid share


def model_size(clip: Clip, rounded: Mapping[str, Format] | None = None, granularity: Granularity = "channel") -> int:
    """Return the bytes of all parameters of both towers.

    Tensors of torchao and bitsandbytes take the bits that they declare, and their scales. ONNX graphs take those of
    their initializers' types. What transforms or rounds activations is not counted: it is folded into norms and
    weights, or a number for each layer.

    Args:
        clip: The model.
        rounded: The formats of the weights that lie on grids, by name. Each takes the bits of its type, and every grid
            a float32 scale, or its block's scale.
        granularity: The weights that share a grid, if the format does not say it.
    """
    rounded = rounded or {}
    module: nn.Module = clip.module
    size = 0.0
    if isinstance(module, OnnxClip):
        size += sum(_graph_size(Graph(tower.graph())) for tower in module.towers().values())
    for name, parameter in module.named_parameters():
        if isinstance(module, OnnxClip) and name.startswith("original.visual."):  # a graph stands in its place
            continue
        if packed_weights.is_library_tensor(parameter):
            layer = module.get_submodule(name.rpartition(".")[0])
            stored = packed_weights.layer_format(layer) if name.endswith(".weight") else None
            size += _library_size(parameter, stored)
        elif name in rounded:
            size += _rounded_size(parameter, rounded[name], granularity)
        else:
            size += parameter.numel() * parameter.element_size()
    return math.ceil(size)


def _rounded_size(weight: torch.Tensor, form: Format, granularity: Granularity) -> float:
    number = form.weights
    grids = len(grid.to_rows(weight, grid.granularity(form, granularity)))
    scales = {"float32": grids * SCALE, "e8m0": grids, "e4m3": grids + SCALE, "none": 0}[number.scale]
    return weight.numel() * number.bits / 8 + scales


def _library_size(tensor: torch.Tensor, stored: packed_weights.PackedFormat | None) -> float:
    inner = _inner(tensor)
    if stored is None:
        return sum(part.numel() * part.element_size() for part in inner)
    codes = max(inner, key=torch.Tensor.numel)
    scales = sum(part.numel() * part.element_size() for part in inner if part is not codes)
    return stored.elements * stored.bits / 8 + scales


def _inner(tensor: Any) -> list[torch.Tensor]:
    """Return the parts of a library's tensor: the codes, and their scales."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao
        return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    state = getattr(tensor, "quant_state", None)  # bitsandbytes, of 4 bits
    nested = [state, getattr(state, "state2", None)]
    scales = [getattr(part, "absmax", None) for part in nested] + [getattr(tensor, "SCB", None)]
    return [tensor.data, *(scale for scale in scales if isinstance(scale, torch.Tensor))]


def _graph_size(graph: Graph) -> float:
    sizes = (math.prod(tensor.dims) * graph.bits_of(tensor) / 8 for tensor in graph.initializers.values())
    return float(sum(sizes))
