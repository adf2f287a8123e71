"""Products of matrices get the one form that has integer kernels: Gemm with a constant weight and a bias of shape `[C]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, attribute, set_attributes
from edgetune.rewrites.layers import channels, per_channel, set_bias, set_weight

if TYPE_CHECKING:
    import onnx

__all__ = ["join_matmuls", "plain_gemms"]


def join_matmuls(graph: Graph) -> int:
    """Make a Gemm of a MatMul of matrices with a constant weight and the Add of a bias behind it."""
    count = 0
    for node in graph.of("MatMul"):
        add = graph.only_reader(node.output[0])
        shape, weight = graph.shape(node.input[0]), graph.floats(node.input[1])
        if add is None or add.op_type != "Add" or shape is None or len(shape) != 2 or weight is None or weight.ndim != 2:
            continue
        other = add.input[1] if add.input[0] == node.output[0] else add.input[0]
        value = graph.floats(other)
        if value is None or per_channel(value, 2, weight.shape[1]) is None:
            continue
        node.op_type = "Gemm"
        graph.rewire(node, [*node.input, other])
        graph.take_over(node, add)
        count += 1
    return count


def plain_gemms(graph: Graph) -> int:
    """Give each Gemm with a constant weight the form alpha = beta = 1, transA = 0, and a bias of shape `[C]`."""
    import numpy as np

    count = 0
    for node in graph.of("Gemm"):
        weight, bias = graph.floats(node.input[1]), None
        if weight is None:
            continue
        if len(node.input) > 2 and node.input[2]:
            value = graph.floats(node.input[2])
            bias = None if value is None else per_channel(value, 2, channels(graph, node))
            if bias is None:
                continue  # It is computed, or another one for each image.
        alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
        turned = bool(attribute(node, "transA", 0))
        narrow = bias is not None and list(graph.array(node.input[2]).shape) != [len(bias)]
        if alpha == 1.0 and beta == 1.0 and not turned and not narrow:
            continue
        if turned:
            _transpose_before(graph, node)
        set_attributes(node, transB=int(attribute(node, "transB", 0)))
        if alpha != 1.0:
            set_weight(graph, node, (weight * alpha).astype(np.float32))
        if bias is not None and (narrow or beta != 1.0):
            set_bias(graph, node, (bias * beta).astype(np.float32))
        count += 1
    return count


def _transpose_before(graph: Graph, node: onnx.NodeProto) -> None:
    from onnx import helper

    result = graph.fresh(f"{node.name}.transposed")
    transpose = helper.make_node(
        "Transpose", [node.input[0]], [result], name=graph.fresh(f"{node.name}.transpose"), perm=[1, 0]
    )
    graph.insert(node, transpose)
    graph.rewire(node, [result, *node.input[1:]])
