import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra pytest-qreliab[onnxruntime] is not installed")
pytest.importorskip("onnxruntime", reason="the extra pytest-qreliab[onnxruntime] is not installed")

from onnx import TensorProto, helper, numpy_helper

from pytest_qreliab.quantizers.libraries.onnx_graph import Graph, Matrix

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(8, 3)).astype(np.float32)
CODES = RNG.integers(-8, 8, (8, 3)).astype(np.int8)
ONE, ZERO = np.float32(0.1), np.int8(0)


def graph(nodes, weights):
    """A model from x, float (batch, 5, 8), through nodes given as (operator, inputs, outputs[, attributes])."""
    made = [helper.make_node(op, list(ins), list(outs), **dict(*more)) for op, ins, outs, *more in nodes]
    initializers = [
        helper.make_tensor(name, TensorProto.INT4, value[0].shape, value[0].flatten())
        if isinstance(value, list)
        else numpy_helper.from_array(np.asarray(value), name)
        for name, value in weights.items()
    ]
    return Graph(
        helper.make_model(
            helper.make_graph(
                made,
                "graph",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5, 8])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                initializers,
            ),
            opset_imports=[helper.make_opsetid("", 21)],
            ir_version=10,
        )
    )


def only(nodes, weights) -> Matrix:
    found = graph(nodes, weights)
    (matrix,) = found.matrices()
    # 5 places, 8 x 3 weights, a product and a sum each; the batch of two counts once.
    assert found.flops([matrix], np.ones((2, 5, 8), np.float32)) == {matrix.output: 2 * 5 * 24}
    assert (matrix.elements, matrix.convolution) == (24, False)
    return matrix


QUANTIZED_X = [("QuantizeLinear", ("x", "s", "z"), ("xq",)), ("DequantizeLinear", ("xq", "s", "z"), ("xd",))]
SCALES = {"s": ONE, "z": ZERO}


def test_a_float_weight():
    matrix = only([("MatMul", ("x", "w"), ("y",))], {"w": WEIGHT})
    assert (matrix.name, matrix.bits, matrix.activations) == ("w", None, None)


def test_a_constant_node_and_a_transposed_weight():
    constant = ("Constant", (), ("c",), {"value": numpy_helper.from_array(WEIGHT.T.copy(), "c")})
    matrix = only([constant, ("Transpose", ("c",), ("w",)), ("MatMul", ("x", "w"), ("y",))], {})
    assert (matrix.name, matrix.bits) == ("c", None)


@pytest.mark.parametrize(("stored", "bits"), [(CODES, 8), ([CODES], 4)])
def test_a_stored_integer_weight_alone(stored, bits):
    nodes = [("DequantizeLinear", ("w", "s"), ("wd",)), ("MatMul", ("x", "wd"), ("y",))]
    matrix = only(nodes, {"w": stored, "s": ONE})
    assert (matrix.name, matrix.bits, matrix.activations) == ("w", bits, None)


def test_weight_and_input_in_pairs():
    nodes = [
        *QUANTIZED_X,
        ("QuantizeLinear", ("w", "s", "z"), ("wq",)),
        ("DequantizeLinear", ("wq", "s", "z"), ("wd",)),
        ("MatMul", ("xd", "wd"), ("y",)),
    ]
    matrix = only(nodes, {"w": WEIGHT, **SCALES})
    assert (matrix.bits, matrix.activations) == (8, 8)
    matrix = only([*QUANTIZED_X, ("MatMul", ("xd", "w"), ("y",))], {"w": WEIGHT, **SCALES})
    assert (matrix.bits, matrix.activations) == (None, 8)


def test_integer_operators():
    nodes = [
        ("DynamicQuantizeLinear", ("x",), ("xq", "xs", "xz")),
        ("MatMulInteger", ("xq", "w", "xz"), ("yi",)),
        ("Cast", ("yi",), ("y",), {"to": TensorProto.FLOAT}),
    ]
    matrix = only(nodes, {"w": CODES})
    assert (matrix.name, matrix.output, matrix.bits, matrix.activations) == ("w", "yi", 8, 8)
    nodes = [
        QUANTIZED_X[0],
        ("QLinearMatMul", ("xq", "s", "z", "w", "s", "z", "s", "z"), ("yq",)),
        ("DequantizeLinear", ("yq", "s", "z"), ("y",)),
    ]
    matrix = only(nodes, {"w": CODES, **SCALES})
    assert (matrix.name, matrix.bits, matrix.activations) == ("w", 8, 8)


@pytest.mark.parametrize(("right", "bits"), [("t", None), ("td", 8)])
def test_a_product_of_activations_has_the_wider_of_its_sides(right, bits):
    nodes = [
        *QUANTIZED_X,
        ("Transpose", ("x",), ("t",), {"perm": [0, 2, 1]}),
        ("QuantizeLinear", ("t", "s", "z"), ("tq",)),
        ("DequantizeLinear", ("tq", "s", "z"), ("td",)),
        ("MatMul", ("xd", right), ("y",)),
    ]
    found = graph(nodes, SCALES)
    (product,) = found.activation_products()
    assert (product.output, product.bits) == ("y", bits)
    # 5 x 5 sums of 8 products
    assert found.flops([], np.ones((2, 5, 8), np.float32), [product]) == {"y": 2 * 25 * 8}


def test_products_of_activations_and_dead_nodes_are_no_matrices():
    nodes = [
        ("Transpose", ("x",), ("t",), {"perm": [0, 2, 1]}),
        ("MatMul", ("x", "t"), ("y",)),
        ("DequantizeLinear", ("w", "s"), ("wd",)),
        ("MatMul", ("x", "wd"), ("never",)),
    ]
    found = graph(nodes, {"w": CODES, "s": ONE})
    assert found.matrices() == []
    assert [product.left for product in found.activation_products()] == ["x"]
    assert found.flops([], np.ones((2, 5, 8), np.float32), found.activation_products()) == {"y": 2 * 25 * 8}
