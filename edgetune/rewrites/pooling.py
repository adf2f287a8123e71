"""Means over a whole map become GlobalAveragePool, which has an integer kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, attribute, set_attributes

if TYPE_CHECKING:
    import onnx

__all__ = ["merge_means", "pool_means", "pool_whole_maps"]


def pool_means(graph: Graph) -> int:
    """Replace each mean of an image `[N, C, H, W]` over height and width by GlobalAveragePool, flattened if it drops them."""
    count = 0
    for node in graph.of("ReduceMean"):
        if _mean_axes(graph, node) != [2, 3] or len(graph.shape(node.input[0]) or ()) != 4:
            continue
        keeps = attribute(node, "keepdims", 1)
        graph.rewire(node, node.input[:1])
        node.op_type = "GlobalAveragePool"
        set_attributes(node)
        if not keeps:
            _flatten_behind(graph, node)
        count += 1
    return count


def _mean_axes(graph: Graph, node: onnx.NodeProto) -> list[int] | None:
    """Return the axes of a ReduceMean, counted from the front and sorted; None if they are computed, or all."""
    axes = attribute(node, "axes")
    if len(node.input) > 1 and node.input[1]:
        axes = graph.integers(node.input[1])
    shape = graph.shape(node.input[0])
    return sorted(axis % len(shape) for axis in axes) if axes and shape else None


def _flatten_behind(graph: Graph, node: onnx.NodeProto) -> None:
    """Let a node write another tensor, and a Flatten what it wrote before."""
    from onnx import helper

    result = node.output[0]
    pooled = graph.fresh(f"{result}.pooled")
    flatten = helper.make_node("Flatten", [pooled], [result], name=graph.fresh(f"{node.name}.flatten"), axis=1)
    graph.write(node, pooled)
    graph.insert(node, flatten, behind=True)


def merge_means(graph: Graph) -> int:
    """Make one mean of two in a row over one axis each: `x.mean(3).mean(2)`."""
    count = 0
    for node in graph.of("ReduceMean"):
        first = graph.producer(node.input[0], "ReduceMean")
        if first is None or graph.only_reader(first.output[0]) is not node or len(node.input) > 1 or len(first.input) > 1:
            continue
        keeps = attribute(first, "keepdims", 1)
        if keeps != attribute(node, "keepdims", 1):
            continue
        one, two = _mean_axes(graph, first), _mean_axes(graph, node)
        if one is None or two is None or len(one) != 1 or len(two) != 1 or (one == two and keeps):
            continue
        second = two[0] if keeps or two[0] < one[0] else two[0] + 1
        set_attributes(node, axes=sorted([one[0], second]), keepdims=keeps)
        graph.rewire(node, first.input[:1])
        count += 1
    return count


def pool_whole_maps(graph: Graph) -> int:
    """Replace each AveragePool whose window is the whole map by GlobalAveragePool."""
    count = 0
    for node in graph.of("AveragePool"):
        shape = graph.shape(node.input[0])
        if shape is None or list(shape[2:]) != list(attribute(node, "kernel_shape")):
            continue
        padded = any(attribute(node, "pads", [])) or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        if padded or any(step != 1 for step in attribute(node, "dilations", [])):
            continue
        node.op_type = "GlobalAveragePool"
        set_attributes(node)
        count += 1
    return count
