"""Exported graphs made ready for ONNX Runtime's tools: one kind of product, and nodes with the names of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pytest_qreliab.hashing import array_digest
from pytest_qreliab.quantizers.libraries import optional


def prepare(model: bytes, layers: Mapping[str, nn.Module]) -> Any:
    """Return a graph of products whose nodes, and weights, are named after the layers of a model.

    Args:
        model: The exported graph.
        layers: The layers by name. A weight is known by its values, as it is or transposed; of two layers with the same
            values each node gets one of the names.
    """
    graph = as_products(optional.load("onnx").load_from_string(model))
    arrays = optional.load("onnx.numpy_helper")
    names: dict[str, list[str]] = {}
    for name, layer in layers.items():
        weight = layer.get_parameter("weight").detach().cpu()
        for values in (weight, weight.T) if weight.ndim == 2 else (weight,):
            names.setdefault(array_digest(values.float().numpy()), []).append(name)
    initializers = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1] in initializers:
            tensor = initializers[node.input[1]]
            fitting = names.get(array_digest(arrays.to_array(tensor)))
            if fitting:
                name = fitting.pop(0) if len(fitting) > 1 else fitting[0]
                node.name = name
                _rename(graph, tensor, f"{name}.weight")
                initializers[tensor.name] = tensor
    return graph


def _rename(graph: Any, tensor: Any, name: str) -> None:
    for node in graph.graph.node:
        for place, read in enumerate(node.input):
            if read == tensor.name:
                node.input[place] = name
    tensor.name = name
    for info in list(graph.graph.value_info):  # of a tensor that had the name before it was transposed
        if info.name == name:
            graph.graph.value_info.remove(info)


def as_products(model: Any) -> Any:
    """Turn each `Gemm` of a weight into `MatMul` and `Add`, in place.

    The model is returned. ONNX Runtime's weight-only tool knows no Gemm.
    """
    onnx = optional.load("onnx")
    arrays = optional.load("onnx.numpy_helper")
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        scaled = given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0 or given.get("transA", 0)
        if node.op_type != "Gemm" or node.input[1] not in initializers or scaled:
            nodes.append(node)
            continue
        weight, product = node.input[1], f"{node.output[0]}_product"
        if given.get("transB", 0):
            turned = arrays.to_array(initializers[weight]).T.copy()
            weight = f"{weight}_transposed_for_{node.name}"
            model.graph.initializer.append(arrays.from_array(turned, weight))
        has_bias = len(node.input) > 2 and bool(node.input[2])
        result = product if has_bias else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], weight], [result], name=node.name))
        if has_bias:
            nodes.append(
                onnx.helper.make_node("Add", [product, node.input[2]], list(node.output), name=f"{node.name}_bias")
            )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def masks(model: Any) -> list[str]:
    """Return the names of the nodes that make attention's masks, add them, and read the sum.

    A mask holds infinity, and a grid over infinity leaves nothing of the scores.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    read = {node.input[0]: node.name for node in model.graph.node if node.op_type == "Softmax"}
    adds = [node for node in model.graph.node if node.op_type == "Add" and node.output[0] in read]
    found = {node.name for node in adds} | {read[node.output[0]] for node in adds}
    wanted = [side for node in adds for side in node.input]
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.op_type not in ("MatMul", "Mul", "Div") and node.name not in found:
            found.add(node.name)
            wanted.extend(node.input)
    return sorted(found)
