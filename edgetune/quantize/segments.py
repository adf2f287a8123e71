"""Where a graph is one tensor wide: there it can be cut into parts that are learnt one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.quantize.graph import QuantGraph

if TYPE_CHECKING:
    import onnx

__all__ = ["Segment", "segments"]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Some nodes of a graph that read one computed tensor and write one that is read behind them.

    Attributes:
        source: the tensor that they read: the graph's input, or one with a grid.
        target: the tensor that they write: one with a grid, or the graph's output.
        nodes: in order.
        layers: how many of them have an integer weight.
    """

    source: str
    target: str
    nodes: tuple[onnx.NodeProto, ...]
    layers: int


def segments(graph: QuantGraph, *, least_layers: int) -> list[Segment]:
    """Return the graph in segments, in order; together they hold every node.

    Args:
        graph: with grids for all activations and weights.
        least_layers: each segment has at least so many layers with an integer weight, as far as the graph has places to cut.
    """
    nodes = list(graph.model.graph.node)
    last_read = {name: index for index, node in enumerate(nodes) for name in node.input}
    alive = {graph.model.graph.input[0].name}
    found: list[Segment] = []
    source, start, layers = graph.model.graph.input[0].name, 0, 0
    for index, node in enumerate(nodes):
        alive.update(node.output)
        alive = {name for name in alive if last_read.get(name, -1) > index or name in graph.outputs}
        layers += node.name in graph.weights
        ends = index == len(nodes) - 1
        if ends or (layers >= least_layers and len(alive) == 1 and _can_wait(graph, next(iter(alive)))):
            target = next(iter(alive))
            found.append(Segment(source=source, target=target, nodes=tuple(nodes[start : index + 1]), layers=layers))
            source, start, layers = target, index + 1, 0
    return _without_a_short_end(found, least_layers)


def _can_wait(graph: QuantGraph, name: str) -> bool:
    """Return whether a tensor can stand between two segments: it is on a grid of its own."""
    return name in graph.activations and name not in graph.moved and (graph.entry is None or graph.entry[0] != name)


def _without_a_short_end(found: list[Segment], least: int) -> list[Segment]:
    """Return the segments with the last one joined to the one before it, if it has too few layers."""
    if len(found) < 2 or found[-1].layers >= least:
        return found
    *rest, before, last = found
    nodes = (*before.nodes, *last.nodes)
    return [*rest, Segment(source=before.source, target=last.target, nodes=nodes, layers=before.layers + last.layers)]
