"""What an ONNX graph says of its quantization: which matrix products and convolutions read integers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
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


@dataclass(frozen=True)
class Matrix:
    """A weight at work in a node whose result is `output`.

    `bits` is None where the weight is a float, `activations` where the input is.
    """

    name: str
    output: str
    elements: int
    bits: int | None
    activations: int | None
    convolution: bool


class Graph:
    """The nodes of a model that its outputs need, and where their inputs come from."""

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
        """Every weight that a matrix product or a convolution reads. Products of two activations are none."""
        return [matrix for node in self._live() if (matrix := self._matrix(node)) is not None]

    def bits_of(self, initializer: Any) -> int:
        """The width of one of its elements."""
        return _bits(self.onnx, initializer.data_type) or (
            8 * self.onnx.helper.tensor_dtype_to_np_dtype(initializer.data_type).itemsize
        )

    def flops(self, matrices: list[Matrix], x: npt.NDArray[Any]) -> dict[str, float]:
        """FLOPs of each matrix, by its output, in a run of the graph on `x`, in which every node really runs."""
        runtime = importlib.import_module("onnxruntime")
        watched = self.onnx.ModelProto()
        watched.CopyFrom(self.model)
        there = {output.name for output in watched.graph.output}
        watched.graph.output.extend(
            self.onnx.ValueInfoProto(name=matrix.output) for matrix in matrices if matrix.output not in there
        )
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = runtime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [matrix.output for matrix in matrices]
        results = session.run(names, {session.get_inputs()[0].name: x})
        return {
            matrix.output: 2.0 * result.size / len(x) * matrix.elements / result.shape[1 if matrix.convolution else -1]
            for matrix, result in zip(matrices, results, strict=True)
        }

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
            given = {one.name: one.i for one in node.attribute}
            accuracy = given.get("accuracy_level", 0)  # 4: the input is rounded to int8
            elements = given["K"] * given["N"]
            return Matrix(node.input[1], node.output[0], elements, given["bits"], 8 if accuracy == 4 else None, False)
        if node.op_type in INTEGER:
            x, weight = (node.input[place] for place in INTEGER[node.op_type])
            bits, initializer = self._origin(weight)
            if initializer is None:
                return None
            return Matrix(initializer.name, node.output[0], _size(initializer), bits, 8, convolution)
        if node.op_type not in FLOATING:
            return None
        x, weight = (node.input[place] for place in FLOATING[node.op_type])
        bits, initializer = self._origin(weight)
        if initializer is None and not convolution:  # a weight may stand on the left
            x, weight = weight, x
            bits, initializer = self._origin(weight)
        if initializer is None:
            return None
        return Matrix(initializer.name, node.output[0], _size(initializer), bits, self._origin(x)[0], convolution)

    def _origin(self, name: str) -> tuple[int | None, Any]:
        """The width of the integers a value has been, None for a float, and the initializer it began as, if any."""
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
        """Of the integers that a QuantizeLinear makes: by its zero point, else by its attribute, else uint8."""
        for attribute in node.attribute:
            if attribute.name == "output_dtype" and attribute.i:
                return _bits(self.onnx, attribute.i) or 8
        if len(node.input) > 2 and node.input[2] in self.initializers:
            return _bits(self.onnx, self.initializers[node.input[2]].data_type) or 8
        return 8


def _size(initializer: Any) -> int:
    return math.prod(initializer.dims)


def _bits(onnx: Any, data_type: int) -> int | None:
    """The width of a type below 16 bits, integers and float8 alike; None for float16, float32 and int32 up."""
    name = onnx.TensorProto.DataType.Name(data_type)
    for width in (2, 4, 8):
        if name.startswith((f"INT{width}", f"UINT{width}", f"FLOAT{width}E")):
            return width
    return None
