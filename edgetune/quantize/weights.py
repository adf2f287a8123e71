"""Weights in integers, one scale per output channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.quantize.graph import QuantGraph, WeightGrid, attribute, integer_limits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["round_weights", "weight_axis"]

# A channel that is nearly dead gets this part of the layer's largest scale at least: with a smaller one, the int32 bias, which is
# counted in units of (input scale x weight scale), would overflow.
SCALE_FLOOR = 1e-3


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
        )
        for node in graph.layers()
    }
    step = {"step": "weights rounded to nearest", "layers": len(rounded), "per_channel": rules.per_channel}
    return graph.updated(step, weights=rounded)


def to_grid(
    weight: npt.NDArray[np.float32], axis: int, *, kind: str, per_channel: bool, reduce_range: bool
) -> WeightGrid:
    """Return a weight on the symmetric grid that its largest value of each channel spans.

    Args:
        weight: of any shape.
        axis: of the output channels.
        kind: uint8 or int8; uint8 has its zero point in the middle.
        per_channel: one scale per channel, or one for all.
        reduce_range: use seven bits.
    """
    import numpy as np

    smallest, largest = integer_limits("int8", reduce_range=reduce_range)
    others = tuple(index for index in range(weight.ndim) if index != axis)
    reach = np.abs(weight).max(axis=others) if per_channel else np.abs(weight).max().reshape(1)
    scale = (np.maximum(reach, max(float(reach.max()) * SCALE_FLOOR, 1e-12)) / largest).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    # The smallest integer is left out so that the grid is symmetric.
    integers = np.clip(np.round(weight / scale.reshape(shape if per_channel else [1])), smallest + 1, largest)
    zero_point = 128 if kind == "uint8" else 0
    values = (integers + zero_point).astype(np.uint8 if kind == "uint8" else np.int8)
    return WeightGrid(scale=scale, zero_point=zero_point, axis=axis, values=values)
