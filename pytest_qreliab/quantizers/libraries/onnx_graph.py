"""Read from an ONNX graph which products compute on integers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

# Operators that multiply their input (first place) by a weight (second place).
FLOATING = {"MatMul": (0, 1), "Gemm": (0, 1), "Conv": (0, 1)}
INTEGER = {
    "MatMulInteger": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "QLinearMatMul": (0, 3),
    "QLinearConv": (0, 3),
    "QGemm": (0, 3),
}
MOVES = frozenset({"Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Cast"})


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A weight that a node of a graph multiplies by."""

    name: str
    output: str  # the name of the node's result
    elements: int
    bits: int | None  # None: the weight is a float
    activations: int | None  # the width of the node's input; None: it is a float
    convolution: bool  # whether the node is a convolution


@dataclass(frozen=True, kw_only=True)
class ActivationProduct:
    """A node of a graph that multiplies two activations."""

    name: str  # of the node
    left: str  # the name of what stands on the left
    output: str  # the name of the node's result
    bits: int | None  # the larger width of the two; None: one of them is a float


class Graph:
    """An ONNX model, with where the inputs of its nodes come from."""

    def __init__(self, model: Any) -> None:
        self.onnx = importlib.import_module("onnx")
        if model.functions:
            model = importlib.import_module("onnx.inliner").inline_local_functions(model)
        self.model = model
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers: dict[str, Any] = {}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.initializers[node.output[0]] = node.attribute[0].t
            else:
                self.producers.update(dict.fromkeys(node.output, node))

    def matrices(self) -> list[Matrix]:
        """Return every weight that a matrix product or a convolution reads.

        Products of two activations have none.
        """
        return [matrix for node in self._live() if (matrix := self._matrix(node)) is not None]

    def activation_products(self) -> list[ActivationProduct]:
        """Return every product of two activations."""
        found = []
        for node in self._live():
            places = (FLOATING | INTEGER).get(node.op_type)
            if places is None or "Conv" in node.op_type or self._matrix(node) is not None:
                continue
            left, right = (node.input[place] for place in places)
            widths = [8 if node.op_type in INTEGER else self._origin(side)[0] for side in (left, right)]
            bits = None if None in widths else max(width for width in widths if width is not None)
            found.append(ActivationProduct(name=node.name, left=left, output=node.output[0], bits=bits))
        return found

    def bits_of(self, initializer: Any) -> int:
        """Return the width of one element of an initializer."""
        return _bits(self.onnx, initializer.data_type) or (
            8 * self.onnx.helper.tensor_dtype_to_np_dtype(initializer.data_type).itemsize
        )

    def flops(
        self, matrices: list[Matrix], x: npt.NDArray[Any], products: Sequence[ActivationProduct] = ()
    ) -> dict[str, float]:
        """Return the FLOPs of each matrix and each product of activations.

        They are counted in a run of the graph in which every node really runs.

        Args:
            matrices: Weights of this graph.
            x: The input of the graph, with the batch as its first axis.
            products: Products of activations of this graph.

        Returns:
            The FLOPs of one sample, by the output of the matrix or product.
        """
        outputs = {matrix.output for matrix in matrices} | {one.output for one in products}
        results = self._values(outputs | {one.left for one in products}, x)
        flops = {
            matrix.output: 2.0 * results[matrix.output].size * matrix.elements
            / results[matrix.output].shape[1 if matrix.convolution else -1]
            for matrix in matrices
        }  # fmt: skip
        flops |= {one.output: 2.0 * results[one.output].size * results[one.left].shape[-1] for one in products}
        return {output: count / len(x) for output, count in flops.items()}

    def _values(self, names: set[str], x: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Return values of the graph for an input, by name."""
        runtime = importlib.import_module("onnxruntime")
        watched = self.onnx.ModelProto()
        watched.CopyFrom(self.model)
        known = {value.name for value in [*watched.graph.output, *watched.graph.input]}
        watched.graph.output.extend(self.onnx.ValueInfoProto(name=name) for name in sorted(names - known))
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = runtime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0].name
        wanted = sorted(names - {given})
        return {given: x, **dict(zip(wanted, session.run(wanted, {given: x}), strict=True))}

    def _live(self) -> Iterator[Any]:
        wanted, seen = [output.name for output in self.model.graph.output], set()
        while wanted:
            node = self.producers.get(wanted.pop())
            if node is not None and id(node) not in seen:
                seen.add(id(node))
                wanted.extend(node.input)
        return (node for node in self.model.graph.node if id(node) in seen)

    def _matrix(self, node: Any) -> Matrix | None:
        convolution = "Conv" in node.op_type
        if node.op_type == "MatMulNBits":
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            accuracy = attributes.get("accuracy_level", 0)  # 4: the input is rounded to int8
            elements = attributes["K"] * attributes["N"]
            return Matrix(
                name=node.input[1],
                output=node.output[0],
                elements=elements,
                bits=attributes["bits"],
                activations=8 if accuracy == 4 else None,
                convolution=False,
            )
        if node.op_type in INTEGER:
            x, weight = (node.input[place] for place in INTEGER[node.op_type])
            bits, initializer = self._origin(weight)
            if initializer is None:
                return None
            return Matrix(
                name=initializer.name,
                output=node.output[0],
                elements=_size(initializer),
                bits=bits,
                activations=8,
                convolution=convolution,
            )
        if node.op_type not in FLOATING:
            return None
        x, weight = (node.input[place] for place in FLOATING[node.op_type])
        bits, initializer = self._origin(weight)
        if initializer is None and not convolution:  # a weight may stand on the left
            x, weight = weight, x
            bits, initializer = self._origin(weight)
        if initializer is None:
            return None
        return Matrix(
            name=initializer.name,
            output=node.output[0],
            elements=_size(initializer),
            bits=bits,
            activations=self._origin(x)[0],
            convolution=convolution,
        )

    def _origin(self, name: str) -> tuple[int | None, Any]:
        """Return the width of a value's integers, and its initializer, if any."""
        bits: int | None = None
        while name not in self.initializers:
            node = self.producers.get(name)
            if node is None:
                return bits, None
            if node.op_type == "DynamicQuantizeLinear":
                return 8, None
            if node.op_type == "QuantizeLinear":
                bits = self._width(node)
            elif node.op_type not in MOVES and node.op_type != "DequantizeLinear":
                return bits, None
            name = node.input[0]
        initializer = self.initializers[name]
        return (_bits(self.onnx, initializer.data_type) if bits is None else bits), initializer

    def _width(self, node: Any) -> int:
        """Return the width that a QuantizeLinear rounds to."""
        for attribute in node.attribute:
            if attribute.name == "output_dtype" and attribute.i:
                return _bits(self.onnx, attribute.i) or 8
        if len(node.input) > 2 and node.input[2] in self.initializers:
            return _bits(self.onnx, self.initializers[node.input[2]].data_type) or 8
        return 8


def _size(initializer: Any) -> int:
    return math.prod(initializer.dims)


def _bits(onnx: Any, data_type: int) -> int | None:
    """Return the width of a type below 16 bits; None for others."""
    name = onnx.TensorProto.DataType.Name(data_type)
    for width in (2, 4, 8):
        if name.startswith((f"INT{width}", f"UINT{width}", f"FLOAT{width}E")):
            return width
    return None
