"""Layers that stay in float: a graph with some of its nodes taken out of the integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from edgetune.errors import Fault, GraphError
from edgetune.quantize.graph import QuantGraph

__all__ = ["in_float", "named_layers"]


def in_float(graph: QuantGraph, reasons: Mapping[str, str]) -> QuantGraph:
    """Return the graph with more nodes in float.

    Args:
        graph: with or without grids; those that nobody needs any more are dropped.
        reasons: why, by the nodes' names.
    """
    if not reasons:
        return graph
    rest = replace(graph, left_float={**graph.left_float, **reasons})
    wanted, layers = set(rest.activation_names()), {node.name for node in rest.layers()}
    return replace(
        rest,
        activations={name: grid for name, grid in graph.activations.items() if name in wanted},
        weights={name: weight for name, weight in graph.weights.items() if name in layers},
        entry=graph.entry if graph.entry and graph.entry[0] in wanted else None,
    )


def named_layers(graph: QuantGraph, patterns: Iterable[str]) -> list[str]:
    """Return the names of the quantized layers that match one of the patterns, in the order of the graph.

    Raises:
        GraphError: a pattern matches none, with every such pattern.
    """
    layers = [node.name for node in graph.layers()]
    faults = [
        Fault(where="quantize.float_layers", problem="no layer has this name", got=pattern)
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in layers)
    ]
    if faults:
        raise GraphError(
            "layers to be left in float are not there",
            faults=faults,
            remedy=f"use the graph's names, such as {', '.join(layers[:3])}; `edgetune sensitivity` lists all of them",
        )
    return [name for name in layers if any(fnmatchcase(name, pattern) for pattern in patterns)]
