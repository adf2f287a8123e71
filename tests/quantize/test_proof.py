"""What is left in float is named as the file names it, with the reason; and blamed for its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.optimised import Origins, optimised_model
from edgetune.profile import Profile
from edgetune.quantize.blame import KINDS, blame
from edgetune.quantize.proof import optimised_graph

QUICK = {"effort": "fast", "ranges": "minmax", "bias_correction": False}
NO_KERNEL = "has no integer kernel in ONNX Runtime"


def hindered(net: Any) -> onnx.ModelProto:
    """Return a network with an activation between its layers that has no integer kernel."""
    x = net.conv(net.stem())
    x = net.add("Elu", x)
    return net.head(net.add("Relu", net.conv(x)))


def test_a_graph_all_in_integers_has_nothing_to_explain(net: Any, quantized: Any, profile: Profile) -> None:
    x = net.stem()
    model = quantized(net.head(net.add("Relu", net.add("Add", x, net.conv(x)))), **QUICK)
    proof = optimised_graph(model.path, profile.runtime)
    assert proof.conversions == ()
    assert proof.float_layers == ()
    assert proof.operators == model.operators


def test_an_operator_without_a_kernel_is_the_reason_for_both_conversions(net: Any, quantized: Any, profile: Profile) -> None:
    proof = optimised_graph(quantized(hindered(net), **QUICK).path, profile.runtime)
    elu = next(node for node in net.nodes if node.op_type == "Elu")
    assert [(entry.direction, entry.tensor) for entry in proof.conversions] == [
        ("dequantize", elu.input[0]),
        ("quantize", elu.output[0]),
    ]
    assert {(entry.operator, entry.node, entry.reason) for entry in proof.conversions} == {("Elu", elu.name, NO_KERNEL)}
    assert proof.reasons() == {f"Elu {NO_KERNEL}": 2}
    assert str(proof.conversions[0]) == f"{elu.input[0]} (dequantize): Elu {elu.name} {NO_KERNEL}"


def test_the_entry_in_float_is_not_called_a_missing_kernel(net: Any, quantized: Any, profile: Profile) -> None:
    far_apart = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    model = quantized(net.head(net.stem(**far_apart)), **QUICK)
    proof = optimised_graph(model.path, profile.runtime)
    assert [(entry.operator, entry.direction) for entry in proof.conversions] == [("Sub", "quantize")]
    assert proof.conversions[0].reason == "computed in front of the first layer"


def test_layers_in_float_have_the_names_that_they_have_in_the_file(net: Any, quantized: Any, profile: Profile) -> None:
    x = net.add("Relu", net.conv(net.add("Relu", net.conv(net.stem()))))
    left = tuple(node.name for node in net.nodes if node.op_type == "Conv")[1:]
    model = quantized(net.head(net.add("Relu", net.conv(x))), float_layers=left, **QUICK)
    proof = optimised_graph(model.path, profile.runtime)
    # ONNX Runtime fuses each Relu into its layer and calls that after the Relu's result.
    assert proof.float_layers == left
    assert [(entry.operator, entry.node) for entry in proof.conversions] == [("Conv", left[0]), ("Conv", left[1])]
    assert [entry.reason for entry in proof.conversions] == ["computed in float"] * 2
    assert proof.rounded_by_runtime == ()


def test_a_layer_that_the_runtime_rounds_on_its_own_is_found(tmp_path: Path, profile: Profile) -> None:
    model = qdq_of_one_conv()
    graph = model.graph
    graph.node.remove(next(node for node in graph.node if node.name == "d_weight"))
    weight = next(tensor for tensor in graph.initializer if tensor.name == "w")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32) * 0.01, "wd"))
    onnx.save(model, tmp_path / "model.onnx")
    proof = optimised_graph(tmp_path / "model.onnx", profile.runtime)
    assert proof.float_layers == ()
    assert proof.rounded_by_runtime == ("conv",)


def test_a_quantized_output_is_named_as_such(tmp_path: Path, profile: Profile) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(qdq_of_one_conv(), path)
    proof = optimised_graph(path, profile.runtime)
    assert proof.operators["QLinearConv"] == 1
    assert proof.rounded_by_runtime == ()
    assert [(entry.direction, entry.operator, entry.reason) for entry in proof.conversions] == [
        ("quantize", "", "an input of the graph is float"),
        ("dequantize", "", "an output of the graph is float"),
    ]


def qdq_of_one_conv() -> onnx.ModelProto:
    """Return a foreign file: float in and out, and one layer in integers."""
    arrays = {
        "s": np.array(0.05, np.float32),
        "z": np.array(128, np.uint8),
        "w": np.random.default_rng(0).integers(-100, 100, (8, 4, 3, 3)).astype(np.int8),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q_in"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="d_in"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="d_weight", axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["y"], name="conv", pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["yq"], name="q_out"),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["out"], name="d_out"),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, 16, 16])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_every_layer_of_the_fp32_graph_finds_its_way_back(net: Any, as_artefact: Any, profile: Profile) -> None:
    x = net.stem()
    x = net.add("Clip", net.conv(x), net.const(0.0), net.const(6.0))
    source = as_artefact(net.head(net.add("Relu", net.add("Add", x, net.conv(x)))))
    model = optimised_model(source.path, profile.runtime)
    origins = Origins(onnx.load(source.path), model)
    found = [origins.of(node) for node in model.graph.node if node.op_type in ("Conv", "FusedConv", "Gemm", "FusedGemm")]
    assert [node.name for node in found if node] == [node.name for node in net.nodes if node.op_type in ("Conv", "Gemm")]


@pytest.fixture
def blamed(net: Any, quantized: Any, profile: Profile, dataset: Any, tmp_path: Path) -> Any:
    model = quantized(hindered(net), **QUICK)
    images = np.array(dataset.images("test"))[:4]
    return blame(tmp_path / "fp32" / "model.onnx", model.path, profile.runtime, images, runs=12, warmup=2)


def test_blame_falls_on_what_an_integer_graph_would_not_need(blamed: Any, net: Any) -> None:
    elu = next(node for node in net.nodes if node.op_type == "Elu")
    float_culprits = [culprit for culprit in blamed.culprits if culprit.kind == "float"]
    assert [(culprit.operator, culprit.node) for culprit in float_culprits] == [("Elu", elu.name)]
    assert sorted(culprit.operator for culprit in blamed.culprits if culprit.kind == "conversion") == [
        "DequantizeLinear",
        "QuantizeLinear",
    ]
    assert KINDS["float"] in str(float_culprits[0])


def test_shares_are_of_the_whole_and_in_order(blamed: Any) -> None:
    shares = [culprit.share_percent for culprit in blamed.culprits]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100
    assert sum(blamed.operators().values()) == pytest.approx(sum(shares))
    elu = next(culprit for culprit in blamed.culprits if culprit.operator == "Elu")
    assert elu.share_percent == pytest.approx(100 * elu.int8_us / blamed.int8_us)
    assert elu.fp32_us is not None
    assert 0 < elu.fp32_us < blamed.fp32_us
