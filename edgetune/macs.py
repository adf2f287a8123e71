"""How much a graph computes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["layer_macs", "multiply_accumulates"]


def multiply_accumulates(model: onnx.ModelProto) -> int | None:
    """Return the multiply-accumulates of one image in convolutions and matrix products; None if a shape is not known.

    Args:
        model: whose input's first side counts images.
    """
    found = layer_macs(model)
    return None if None in found.values() else sum(macs or 0 for macs in found.values())


def layer_macs(model: onnx.ModelProto) -> dict[str, int | None]:
    """Return the multiply-accumulates of one image in each convolution and matrix product; None where a shape is not known.

    Each element of an output is a sum over one filter of a Conv, or over the inner side of a product. The bias is not counted.

    Args:
        model: whose input's first side counts images.

    Returns:
        By the name of the layer's output: a node need not have a name.
    """
    import onnx

    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in [*single.graph.input, *single.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes |= {node.output[0]: list(node.attribute[0].t.dims) for node in graph.node if node.op_type == "Constant"}
    return {node.output[0]: _macs(node, shapes) for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int | None:
    left, right, result = (shapes.get(name, [0]) for name in (*node.input[:2], node.output[0]))
    inner = prod(right[1:]) if node.op_type == "Conv" else left[_inner_side(node)]
    return prod(result) * inner or None


def _inner_side(node: onnx.NodeProto) -> int:
    """Return the axis of the first factor that a product sums over."""
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return 0 if transposed else -1
