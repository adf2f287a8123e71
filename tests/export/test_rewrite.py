"""Rewrites of graphs, on graphs written by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetune.export.rewrite import rename, shape_operators


def graph_of(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def test_names_never_collide_and_do_not_depend_on_the_old_ones() -> None:
    def names(prefix: str) -> list[str]:
        nodes = [
            # The layer's own name is what the first Relu would be called, and its weight is read twice.
            helper.make_node("Conv", ["image", "network.relu_1.weight"], [f"{prefix}1"], name="same"),
            helper.make_node("Relu", [f"{prefix}1"], [f"{prefix}2"], name="same"),
            helper.make_node("Conv", [f"{prefix}2", "network.relu_1.weight"], [f"{prefix}3"], name="same"),
            helper.make_node("Add", [f"{prefix}3", f"{prefix}constant"], ["logits"], name="same"),
        ]
        weight = np.ones((2, 2, 1, 1), np.float32)
        graph = graph_of(nodes, **{"network.relu_1.weight": weight, f"{prefix}constant": np.ones(1, np.float32)})
        rename(graph)
        assert len({node.output[0] for node in graph.node}) == 4
        assert [tensor.name for tensor in graph.initializer] == ["relu_1.weight", "add_1.in1"]
        return [node.name for node in graph.node]

    assert names("a") == names("zz") == ["relu_1", "relu_2", "relu_1_2", "add_1"]


def test_what_computes_shapes_is_named() -> None:
    nodes = [
        helper.make_node("Shape", ["image"], ["s"], name="shape_1"),
        helper.make_node("Relu", ["image"], ["logits"], name="relu_1"),
    ]
    assert shape_operators(graph_of(nodes)) == ["shape_1 (Shape)"]
