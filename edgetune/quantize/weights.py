"""Weights in integers, one scale per output channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.quantize.graph import QuantGraph, WeightGrid, attribute, integer_limits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["round_weights", "weight_axis"]

# A channel that is nearly dead gets this part of the layer's largest scale at least: what it adds is noise.
SCALE_FLOOR = 1e-3
# A bias is counted in units of (input scale x weight scale), in 32 bits. One bit is left for its correction.
LARGEST_BIAS = 2.0**30


def weight_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a layer's output channels in its weight."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 1


def round_weights(graph: QuantGraph) -> QuantGraph:
    """Round every layer's weight to the nearest integers of a symmetric grid."""
    rules = graph.rules
    rounded = {
        node.name: to_grid(
            graph.array(node.input[1]),
            weight_axis(node),
            kind=rules.weight_type,
            per_channel=rules.per_channel,
            reduce_range=rules.reduce_range,
            least=_least_scale(graph, node),
        )
        for node in graph.layers()
    }
    step = {"step": "weights rounded to nearest", "layers": len(rounded), "per_channel": rules.per_channel}
    return graph.updated(step, weights=rounded)


def _least_scale(graph: QuantGraph, node: onnx.NodeProto) -> npt.NDArray[np.float64] | float:
    """Return the weight scales below which a layer's bias would overflow.

    They matter only where the bias is so much larger than what the weights add that their rounding is not felt.
    """
    import numpy as np

    if node.op_type == "MatMul" or len(node.input) < 3 or not node.input[2]:
        return 0.0
    bias = np.abs(graph.array(node.input[2]).astype(np.float64))
    least: npt.NDArray[np.float64] = bias / (graph.activations[node.input[0]].scale * LARGEST_BIAS)
    return least


def to_grid(
    weight: npt.NDArray[np.float32],
    axis: int,
    *,
    kind: str,
    per_channel: bool,
    reduce_range: bool,
    least: npt.NDArray[np.float64] | float = 0.0,
) -> WeightGrid:
    """Return a weight on the symmetric grid that its largest value of each channel spans.

    Args:
        weight: of any shape.
        axis: of the output channels.
        kind: uint8 or int8; uint8 has its zero point in the middle.
        per_channel: one scale per channel, or one for all.
        reduce_range: use seven bits.
        least: the smallest scale allowed, per channel or for all.
    """
    import numpy as np

    smallest, largest = integer_limits("int8", reduce_range=reduce_range)
    others = tuple(index for index in range(weight.ndim) if index != axis)
    reach = np.abs(weight).max(axis=others) if per_channel else np.abs(weight).max().reshape(1)
    scale = np.maximum(reach, max(float(reach.max()) * SCALE_FLOOR, 1e-12)) / largest
    scale = np.maximum(scale, least if per_channel else np.max(least)).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    # The smallest integer is left out so that the grid is symmetric.
    integers = np.clip(np.round(weight / scale.reshape(shape if per_channel else [1])), smallest + 1, largest)
    zero_point = 128 if kind == "uint8" else 0
    values = (integers + zero_point).astype(np.uint8 if kind == "uint8" else np.int8)
    return WeightGrid(scale=scale, zero_point=zero_point, axis=axis, values=values)
