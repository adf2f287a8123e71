"""What moves into layers: batch norms, arithmetic with constants, pads, and the forms of matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetune.rewrites.simplify import integer_gates, simplify

from .writer import assert_same, names_of


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def flat(net: Any) -> str:
    return net.add("Flatten", net.add("GlobalAveragePool", "x"), axis=1)


# Each ends in a tensor, and is a single layer afterwards.
ONE_LAYER: dict[str, Callable[[Any], str]] = {
    "batch norm": lambda net: net.norm(net.conv("x")),
    "batch norm, no bias": lambda net: net.norm(net.conv("x", bias=False), epsilon=0.1),
    "two batch norms": lambda net: net.norm(net.norm(net.conv("x"))),
    "depthwise": lambda net: net.norm(net.conv("x", group=8)),
    "padded": lambda net: net.norm(net.conv("x", pads=[2, 0, 1, 1])),
    "scale per channel": lambda net: net.add("Mul", net.conv("x"), net.const(net.normal(8, 1, 1))),
    "scale on the left": lambda net: net.add("Mul", net.const(net.normal(1, 8, 1, 1)), net.conv("x", bias=False)),
    "scale by a number": lambda net: net.add("Mul", net.conv("x"), net.const(0.3)),
    "division": lambda net: net.add("Div", net.conv("x"), net.const(np.linspace(1, 2, 8).reshape(8, 1, 1))),
    "sum": lambda net: net.add("Add", net.conv("x", bias=False), net.const(net.normal(1, 8, 1, 1))),
    "difference": lambda net: net.add("Sub", net.conv("x"), net.const(net.normal(8, 1, 1))),
    "negated": lambda net: net.add("Sub", net.const(net.normal(8, 1, 1)), net.conv("x")),
    "all of it": lambda net: net.add("Add", net.norm(net.add("Mul", net.conv("x"), net.const([[[[2.0]]]]))), net.const(1.0)),
    "pad": lambda net: net.conv(net.add("Pad", "x", net.const([0, 0, 1, 0, 0, 0, 2, 1], "int64")), pads=[0, 1, 0, 0]),
    "pad of named axes": lambda net: net.conv(
        net.add("Pad", "x", net.const([1, 2, 0, 1], "int64"), net.const(0.0), net.const([-1, 2], "int64")),
        auto_pad="VALID",
    ),
}


@pytest.mark.parametrize("name", ONE_LAYER)
def test_becomes_one_layer(name: str, net: Any, simplified: Any) -> None:
    last = ONE_LAYER[name](net)
    assert simplified(net.model(last)) == ["Conv"]


UNCHANGED: dict[str, Callable[[Any], str]] = {
    "batch norm behind nothing": lambda net: net.norm("x"),
    "batch norm behind a transposed convolution": lambda net: net.norm(
        net.add("ConvTranspose", "x", net.const(net.normal(8, 8, 2, 2)))
    ),
    "a constant of another shape": lambda net: net.add("Add", net.conv("x"), net.const(net.normal(6, 6))),
    "a constant with more axes": lambda net: net.add("Add", net.conv("x"), net.const(net.normal(1, 1, 8, 1, 1))),
    "division by zero": lambda net: net.add("Relu", net.add("Div", net.conv("x"), net.const(0.0))),
    "division by the layer": lambda net: net.add("Div", net.const(1.0), net.add("Relu", net.norm("x"))),
    "a pad of ones": lambda net: net.conv(net.add("Pad", "x", net.const([0, 0, 1, 1] * 2, "int64"), net.const(1.0))),
    "a pad of channels": lambda net: net.conv(net.add("Pad", "x", net.const([0, 1, 0, 0] + [0] * 4, "int64")), 9),
    "a mirrored pad": lambda net: net.conv(net.add("Pad", "x", net.const([0, 0, 1, 1] * 2, "int64"), mode="reflect")),
    "a crop": lambda net: net.conv(net.add("Pad", "x", net.const([0, 0, -1, -1] * 2, "int64"))),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_is_left_alone(name: str, net: Any) -> None:
    model = net.model(UNCHANGED[name](net))
    after, notes = simplify(model)
    assert names_of(after) == names_of(model)
    assert notes == ()


@pytest.mark.parametrize("fold", ["norm", "scale"])
def test_what_others_read_is_left_alone(fold: str, net: Any, simplified: Any) -> None:
    inner = net.conv("x")
    changed = net.norm(inner) if fold == "norm" else net.add("Mul", inner, net.const(2.0))
    assert len(simplified(net.model(inner, changed))) == 2
    assert len(simplified(net.model(net.add("Add", inner, changed)))) == 3


def test_statistics_of_the_batch_itself_are_left_alone(net: Any) -> None:
    inputs = [net.const(value) for value in (np.ones(8), np.zeros(8), np.zeros(8), np.ones(8))]
    model = net.model(net.add("BatchNormalization", net.conv("x"), *inputs, training_mode=1))
    assert simplify(model)[1] == ()


def test_a_shared_weight_is_changed_for_one_layer_only(net: Any, simplified: Any) -> None:
    weight = net.const(net.normal(8, 8, 1, 1) / 3, name="stem.weight")
    first = net.add("Conv", "x", weight)
    model = net.model(net.add("Conv", net.norm(first), weight))
    assert simplified(model) == ["Conv", "Conv"]
    after = simplify(model)[0]
    assert [node.input[1] for node in after.graph.node] == ["stem.weight_2", "stem.weight"]
    assert after.graph.node[0].input[2] == "stem.bias"


def test_layers_keep_their_names_and_the_last_tensor_its_own(net: Any) -> None:
    last = net.norm(net.conv("x"))
    after = simplify(net.model(net.add("Relu", last)))[0]
    assert [(node.name, list(node.output)) for node in after.graph.node] == [("conv_0", [last]), ("relu_2", ["relu_2.out"])]
    assert after.graph.node[0].input[1:] == ["c1", "c0"]


def test_shared_biases_are_split(net: Any, simplified: Any) -> None:
    bias = net.const(np.linspace(0, 1, 8), name="zeros")
    one, two, three = (net.add("Conv", "x", net.const(net.normal(8, 8, 1, 1)), bias) for _ in range(3))
    model = net.model(net.add("Add", net.add("Add", one, two), three))
    simplified(model)
    after = simplify(model)[0]
    assert [node.input[2] for node in after.graph.node if node.op_type == "Conv"] == ["zeros", "conv_1.bias", "conv_2.bias"]


def test_a_bias_that_is_read_as_something_else_is_the_layers_own_afterwards(net: Any, simplified: Any) -> None:
    bias = net.const(np.linspace(0, 1, 5))
    weight = net.const(net.normal(5, 8))
    last = net.add("Add", net.add("Relu", net.add("Gemm", flat(net), weight, bias, transB=1)), bias)
    model = net.model(last)
    simplified(model)
    assert simplify(model)[0].graph.node[2].input[2] == "gemm_2.bias"


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1,), (1, 1), (), None])
@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.5}, {"beta": -2.0}, {"alpha": 0.5, "beta": 0.0, "transB": 1}])
def test_a_gemm_gets_its_plain_form(
    shape: tuple[int, ...] | None, attributes: dict[str, float], net: Any, simplified: Any
) -> None:
    weight = net.const(net.normal(5, 8) if "transB" in attributes else net.normal(8, 5))
    bias = [] if shape is None else [net.const(net.normal(*shape))]
    model = net.model(net.add("Gemm", flat(net), weight, *bias, **attributes))
    assert simplified(model)[-1] == "Gemm"
    after = simplify(model)[0]
    gemm = after.graph.node[-1]
    assert {item.name: item.i for item in gemm.attribute} in ({"transB": 1}, {"transB": 0}, {})
    assert [arrays(after)[name].shape for name in gemm.input[2:]] == ([] if shape is None else [(5,)])


def test_a_transposed_input_is_transposed_before(net: Any, simplified: Any) -> None:
    turned = net.add("Transpose", flat(net), perm=[1, 0])
    model = net.model(net.add("Gemm", turned, net.const(net.normal(8, 5)), net.const(net.normal(5)), transA=1))
    assert simplified(model) == ["GlobalAveragePool", "Flatten", "Gemm"]


def test_a_matrix_product_with_a_bias_is_a_gemm(net: Any, simplified: Any) -> None:
    product = net.add("MatMul", flat(net), net.const(net.normal(8, 5)))
    last = net.norm(net.add("Add", net.const(net.normal(5)), product), 5)
    assert simplified(net.model(last)) == ["GlobalAveragePool", "Flatten", "Gemm"]


def test_a_product_of_tokens_is_left(net: Any, simplified: Any) -> None:
    product = net.add("MatMul", "x", net.const(net.normal(6, 5)))
    assert simplified(net.model(net.add("Add", product, net.const(net.normal(5))))) == ["MatMul", "Add"]


def test_a_norm_that_is_left_becomes_a_depthwise_convolution_for_quantization(net: Any) -> None:
    model = simplify(net.model(net.conv(net.add("Relu", net.norm("x")))))[0]
    after, notes = integer_gates(model)
    assert_same(model, after)
    assert names_of(after) == ["Conv", "Relu", "Conv"]
    assert after.graph.node[0].name == "batchnormalization_0"
    assert notes == ({"step": "batch norms to depthwise convolutions", "nodes": 1},)
