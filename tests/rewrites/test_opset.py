"""Operator sets: older ones are converted, all that are taken give the same integer operators, others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgetune.errors import GraphError
from edgetune.profile import load_profile
from edgetune.progress import Silent
from edgetune.quantize.calibrate import calibrate
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.prepare import prepare
from edgetune.quantize.proof import optimised_graph
from edgetune.quantize.weights import round_weights
from edgetune.rewrites.opset import NEWEST_OPSET, OLDEST_OPSET, at_least
from edgetune.rewrites.simplify import simplify

from .writer import Writer, assert_same, names_of


def everything(net: Writer) -> str:
    """One of each operator that has an integer kernel, from the bytes of an image."""
    x = net.add("Cast", net.add("Transpose", "x", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = net.add("Sub", net.add("Mul", x, net.const(np.full((1, 8, 1, 1), 0.01))), net.const(np.full((1, 8, 1, 1), 1.27)))
    x = net.add("Clip", net.conv(x), net.const(0.0), net.const(6.0))
    x = net.add("Mul", x, net.add("HardSigmoid", net.conv(net.add("GlobalAveragePool", x))))
    x = net.add("Add", x, net.add("Mul", gate := net.conv(x), net.add("Sigmoid", gate)))
    x = net.add("MaxPool", net.add("LeakyRelu", net.conv(x)), kernel_shape=[2, 2])
    x = net.add("AveragePool", net.norm(x), kernel_shape=[2, 2])
    x = net.conv(net.add("Concat", x, net.conv(x), axis=1), 16)
    return net.linear(net.add("Flatten", net.add("GlobalAveragePool", x)))


@pytest.mark.parametrize("opset", [11, OLDEST_OPSET, 17, 21, NEWEST_OPSET])
def test_every_operator_set_gives_the_same_integer_graph(opset: int, net: Any, tmp_path: Path) -> None:
    profile = load_profile("x86-vnni")
    least = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    model = net.model(everything(net), shape=("N", 12, 12, 8), opset=opset, ir_version=least)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 8), np.uint8)
    graph = integer_entry(prepare(model, profile.quantization))
    assert_same(model, graph.model)
    graph = calibrate(graph, lambda: iter([images]), method="minmax", progress=Silent(), total=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(to_qdq(round_weights(graph)).SerializeToString())
    proof = optimised_graph(path, profile.runtime)
    assert proof.float_layers == ()
    assert proof.operators == {
        "Flatten": 1,
        "NhwcMaxPool": 1,
        "QGemm": 1,
        "QLinearAdd": 1,
        "QLinearAveragePool": 1,
        "QLinearConcat": 1,
        "QLinearConv": 7,
        "QLinearGlobalAveragePool": 2,
        "QLinearLeakyRelu": 1,
        "QLinearMul": 2,
        "QLinearSigmoid": 1,
        "Transpose": 1,
    }


def test_an_old_file_is_converted_and_says_so(net: Any) -> None:
    flat = net.add("Squeeze", net.add("ReduceMean", "x", axes=[2, 3]), axes=[2, 3])
    model = net.model(net.linear(net.add("Dropout", flat, ratio=0.5)), opset=11, ir_version=6)
    model.metadata_props.add(key="labels", value="[]")
    after, notes = simplify(model)
    assert notes[0] == {"step": f"converted from opset 11 to {OLDEST_OPSET}"}
    assert (after.opset_import[0].version, after.ir_version) == (OLDEST_OPSET, 7)
    assert after.metadata_props == model.metadata_props
    assert names_of(after) == ["GlobalAveragePool", "Squeeze", "Gemm"]
    assert after.graph.node[0].name == "reducemean_0"
    assert_same(model, after)


def test_the_version_of_the_format_is_raised_with_the_operators(net: Any) -> None:
    model = net.model(net.add("Relu", "x"), opset=18, ir_version=4)
    after, done = at_least(model)
    assert (after.opset_import[0].version, after.ir_version) == (18, 8)
    assert done == "IR version raised from 4 to 8"
    assert at_least(after) == (after, "")


@pytest.mark.parametrize("opset", [NEWEST_OPSET + 1, 0])
def test_what_cannot_be_read_is_refused(opset: int, net: Any) -> None:
    model = net.model(net.add("Relu", "x"))
    model.opset_import[0].version = opset
    with pytest.raises(GraphError, match=rf"opset[\s\S]*expected opset 11 to {NEWEST_OPSET}"):
        simplify(model)


def test_what_cannot_be_converted_is_refused_with_the_reason(net: Any) -> None:
    model = net.model(net.add("Relu", "x"), opset=11, ir_version=6)
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(GraphError, match=r"has opset 11, and cannot be converted to 13[\s\S]*Nonsense"):
        simplify(model)
