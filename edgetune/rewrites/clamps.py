"""Everything that only limits its input is one Clip, or a Relu: these disappear into the range of a quantized tensor."""

from __future__ import annotations

from math import inf, isinf
from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, set_attributes

if TYPE_CHECKING:
    import onnx

__all__ = ["clip_extremes", "limits", "make_clip", "merge_clamps"]


def limits(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Return the limits of a Relu or Clip; None for other nodes, or if they are computed."""
    if node.op_type == "Relu":
        return 0.0, inf
    if node.op_type != "Clip":
        return None
    found = [
        graph.scalar(name) if name else default for name, default in zip([*node.input[1:3], "", ""], (-inf, inf), strict=False)
    ]
    low, high = found
    return None if low is None or high is None else (low, high)


def make_clip(graph: Graph, node: onnx.NodeProto, source: str, low: float, high: float) -> None:
    """Let a node limit a tensor to [low, high]: as a Relu where that is the same."""
    import numpy as np

    set_attributes(node)
    if (low, high) == (0.0, inf):
        node.op_type = "Relu"
        graph.rewire(node, [source])
        return
    node.op_type = "Clip"
    ends = [
        "" if isinf(value) else graph.add_constant(f"{node.name}_{end}", np.array(value, np.float32))
        for end, value in (("min", low), ("max", high))
    ]
    graph.rewire(node, [source, *(ends if ends[1] else ends[:1])])


def clip_extremes(graph: Graph) -> int:
    """Make a Clip of each Min and Max of a tensor and a single number."""
    count = 0
    for node in graph.of("Min", "Max"):
        if len(node.input) != 2:
            continue
        for source, other in (node.input, reversed(node.input)):
            bound, rank = graph.scalar(other), len(graph.shape(source) or ())
            if bound is None or graph.is_constant(source) or len(graph.shape(other) or ()) > rank:
                continue
            low, high = (bound, inf) if node.op_type == "Max" else (-inf, bound)
            make_clip(graph, node, source, low, high)
            count += 1
            break
    return count


def merge_clamps(graph: Graph) -> int:
    """Make one clamp of two in a row: the outer one clamps the limits of the inner one."""
    count = 0
    for node in graph.of("Relu", "Clip"):
        inner = graph.producer(node.input[0], "Relu", "Clip")
        if inner is None or graph.only_reader(inner.output[0]) is not node:
            continue
        first, second = limits(graph, inner), limits(graph, node)
        if first is None or second is None or first[0] > first[1] or second[0] > second[1]:
            continue
        low, high = (min(max(end, second[0]), second[1]) for end in first)
        make_clip(graph, node, inner.input[0], low, high)
        graph.remove(inner)
        count += 1
    return count
