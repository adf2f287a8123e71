"""A profile brought back to the layers of the file, with what follows from shapes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.cli.hotspots import _show
from edgetune.cli.main import main
from edgetune.errors import ArtefactError
from edgetune.gate.sides import read_side
from edgetune.macs import layer_macs
from edgetune.optimised import Origins
from edgetune.tuning.hotspots import joined


class Here:
    """A device as far as the join asks it."""

    where = "a board"

    def session(self, side):
        return dict(side.session)


def fused(source: onnx.ModelProto) -> onnx.ModelProto:
    """Return what a runtime could make of the small network: entry and convolution fused, a layout changed behind it."""
    kernel, head, bias = source.graph.initializer
    packed = numpy_helper.from_array(numpy_helper.to_array(kernel).astype(np.int8), "kernel.packed")
    nodes = [
        helper.make_node("QLinearConv", ["image", "", "", "kernel.packed"], ["features"], name="features_token_3"),
        helper.make_node("ReorderOutput", ["features"], ["plain"], name="ReorderOutput_1"),
        helper.make_node("GlobalAveragePool", ["plain"], ["pooled"], name="pooled"),
        helper.make_node("Gemm", ["pooled", "head", "bias"], ["logits"], name="logits"),
    ]
    graph = helper.make_graph(nodes, "fused", source.graph.input, source.graph.output, [packed, head, bias])
    return helper.make_model(graph)


def profile(*microseconds: float) -> dict:
    outputs = [["float", [1, 4, 8, 8]], ["float", [1, 4, 8, 8]], ["float", [1, 4, 1, 1]], ["float", [1, 3]]]
    operators = ["QLinearConv", "ReorderOutput", "GlobalAveragePool", "Gemm"]
    nodes = [
        {"operator": operator, "name": operator, "microseconds": time, "outputs": [output]}
        for operator, time, output in zip(operators, microseconds, outputs, strict=True)
    ]
    return {"queries": 5, "query_us": 120.0, "nodes": nodes}


@pytest.fixture
def side(classifier, tmp_path):
    onnx.save(classifier(), tmp_path / "model.onnx")
    return read_side(tmp_path / "model.onnx", "model")


def test_layers_have_their_times_their_arithmetic_and_their_bytes(side):
    source = onnx.load(side.path)
    found = joined(Here(), side, profile(50.0, 20.0, 10.0, 20.0), source, fused(source))
    rows = {spot.layer: spot for spot in found.spots}
    assert next(iter(rows)) == "features"
    convolution, product, move = rows["features"], rows["logits"], rows["ReorderOutput_1"]
    # 8 x 8 results of 4 channels, each over 3 x 3 x 3; 8-bit image and weights, float results.
    assert convolution.macs == 8 * 8 * 4 * 27
    assert convolution.bytes == 8 * 8 * 3 + 4 * 27 + 4 * 8 * 8 * 4
    assert (convolution.operator, convolution.runs_as) == ("Conv", ("QLinearConv",))
    assert product.macs == 3 * 4
    assert product.bytes == 4 * (4 + 12 + 3 + 3)
    assert (move.macs, move.bytes, move.operator) == (0, 2 * 4 * 8 * 8 * 4, "ReorderOutput")
    assert convolution.share_percent == pytest.approx(50.0)
    assert convolution.gmacs_per_s == pytest.approx(6912 / 50e-6 / 1e9)
    assert found.not_found == ()
    assert sum(row["share_percent"] for row in found.by_operator()) == pytest.approx(100.0)


def test_the_roofline_is_that_of_the_best_layers_of_the_run(side):
    source = onnx.load(side.path)
    found = joined(Here(), side, profile(50.0, 20.0, 5.0, 20.0), source, fused(source))
    rows = {spot.layer: spot for spot in found.spots}
    assert found.best_gmacs_per_s == rows["features"].gmacs_per_s
    # Pooling reads as fast, but in too few microseconds to be believed.
    assert found.best_gbytes_per_s == rows["ReorderOutput_1"].gbytes_per_s < rows["pooled"].gbytes_per_s * 2
    assert (rows["features"].of_best_percent, rows["features"].bound) == (pytest.approx(100.0), "arithmetic")
    product = rows["logits"]
    roof = product.macs_per_byte * found.best_gbytes_per_s
    assert (product.of_best_percent, product.bound) == (pytest.approx(100 * product.gmacs_per_s / roof), "memory")


def test_a_profile_of_another_graph_is_no_answer(side):
    source = onnx.load(side.path)
    with pytest.raises(ArtefactError, match="timed 4 nodes that are not the 6"):
        joined(Here(), side, profile(1, 1, 1, 1), source, source)


def test_an_integer_layer_without_the_files_name_is_found_by_its_weight(side):
    source = onnx.load(side.path)
    kernel = source.graph.initializer[0]
    small = numpy_helper.from_array(numpy_helper.to_array(kernel).astype(np.int8), kernel.name)
    grid = [numpy_helper.from_array(np.ones((), kind), name) for name, kind in (("s", np.float32), ("z", np.int8))]
    nodes = [helper.make_node("DequantizeLinear", [kernel.name, "s", "z"], ["dequantized"], name="dequantize")]
    for node in source.graph.node:
        names = ["dequantized" if name == kernel.name else name for name in node.input]
        nodes.append(helper.make_node(node.op_type, names, node.output, name=f"{node.op_type.lower()}_1"))
    quantized = helper.make_model(helper.make_graph(nodes, "q", source.graph.input, source.graph.output, [small, *grid]))
    scales = ["s", "z"]
    integer = helper.make_node(
        "QLinearConv", ["image", *scales, kernel.name, *scales, *scales], ["x"], name="QLinearConv_token_2"
    )
    made = helper.make_model(helper.make_graph([integer], "o", source.graph.input, source.graph.output, [small, *grid]))
    origins = Origins(quantized, made)
    assert origins.of(made.graph.node[0]).name == "conv_1"
    move = helper.make_node("Transpose", ["x"], ["features"], name="Transpose_token_163")
    assert origins.of(move) is None


def test_layers_that_are_in_no_row_are_named(side, capsys):
    source = onnx.load(side.path)
    made = fused(source)
    made.graph.node[0].name = "QLinearConv_token_2"
    found = joined(Here(), side, profile(50.0, 20.0, 10.0, 20.0), source, made)
    assert found.not_found == ("features",)
    _show(found, 9)
    assert "under a name that does not lead back: features\n" in capsys.readouterr().out


def test_a_layer_whose_shape_is_not_known_has_no_arithmetic():
    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    inputs = [value("x", TensorProto.FLOAT, ["N", "T", 4])]
    graph = helper.make_graph([node], "g", inputs, [value("y", TensorProto.FLOAT, ["N", "T", 2])], [weight])
    assert layer_macs(helper.make_model(graph)) == {"y": None}


def test_a_table_for_people(side, capsys):
    source = onnx.load(side.path)
    _show(joined(Here(), side, profile(50.0, 20.0, 10.0, 20.0), source, fused(source)), 3)
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:4] == ["features", "QLinearConv", "50.0", "50.0"]
    assert out[4] == "and 1 more: --all"
    assert out[-1] == "profiled on a board: 5 queries, 1 threads"


def test_a_bundle_is_profiled_on_a_device(bundle, capsys):
    assert main(["hotspots", str(bundle("tested")), "--quick", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["macs"] == sum(layer["macs"] for layer in content["layers"]) > 0
    assert content["nodes_us"] == pytest.approx(sum(row["microseconds"] for row in content["operators"]), abs=0.01)
    assert (content["queries"], content["not_found"]) == (10, [])


def test_what_is_no_model_is_said_so(tmp_path, capsys):
    (tmp_path / "model.txt").write_text("none")
    assert main(["hotspots", str(tmp_path / "model.txt")]) == 2
    assert "neither a bundle, a run folder nor an .onnx file" in capsys.readouterr().err
