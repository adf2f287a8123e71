"""Shape arithmetic goes: what a Shape, Gather, Concat ... chain computes is known, up to the size of the batch.

A chain is followed as a tuple of sides, each a number, the name of a side that is not known (the batch), or None. A Reshape
whose target has at most one side that is not a number needs no chain: 0 copies a side from its input, -1 is what is left.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, attribute, set_attributes
from edgetune.rewrites.inference import LARGEST_SHAPE, Shape

if TYPE_CHECKING:
    import onnx

__all__ = ["fix_reshapes", "fold_known_shapes", "remove_expands"]

# Operators that keep the values of a tensor with one axis at most, or put several behind each other.
JOINS = frozenset({"Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
# TensorProto.INT32 and INT64.
INTEGERS = (6, 7)


class _Sides:
    """What tensors of shapes hold, as far as it is known."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[str, Shape | None] = {}
        for node in graph.nodes:
            for name in node.output[:1]:
                self.known[name] = self._computed(node)

    def of(self, name: str) -> Shape | None:
        """Return the values of a tensor of integers; None if not even their number is known."""
        if name in self.known:
            return self.known[name]
        if self.graph.is_constant(name) and prod(self.graph.shape(name) or ()) <= LARGEST_SHAPE:  # type: ignore[arg-type]
            values = self.graph.integers(name)
            return None if values is None else tuple(values)
        return None

    def _computed(self, node: onnx.NodeProto) -> Shape | None:
        if node.op_type == "Shape":
            shape = self.graph.shape(node.input[0])
            return None if shape is None else shape[slice(attribute(node, "start", 0), attribute(node, "end"))]
        exact = self._moved(node)
        if exact is not None:
            return exact
        # Arithmetic with the size of the batch: how many numbers come out is all that is asked of it.
        shape = self.graph.shape(node.output[0])
        if shape is None or self.graph.kind(node.output[0]) not in INTEGERS or len(shape) > 1:
            return None
        count = shape[0] if shape else 1
        return (None,) * count if isinstance(count, int) and count <= LARGEST_SHAPE else None

    def _moved(self, node: onnx.NodeProto) -> Shape | None:
        """Return the result of an operator that only picks and joins sides; None of any other one."""
        result = self.graph.shape(node.output[0])
        parts = [self.of(name) for name in node.input[: None if node.op_type == "Concat" else 1]]
        if result is None or len(result) > 1 or not parts or any(part is None for part in parts):
            return None
        values = tuple(side for part in parts for side in part or ())
        if node.op_type in JOINS or (node.op_type == "Cast" and attribute(node, "to") in INTEGERS):
            return values
        if node.op_type == "Gather":
            indices = self.graph.integers(node.input[1])
            inside = indices is not None and all(-len(values) <= index < len(values) for index in indices)
            return tuple(values[index] for index in indices or ()) if inside else None
        part = self._slice(node) if node.op_type == "Slice" else None
        return None if part is None else values[part]

    def _slice(self, node: onnx.NodeProto) -> slice | None:
        """Return a Slice of one axis as Python's."""
        bounds = [self.graph.integers(name) for name in (node.input[1], node.input[2], *node.input[4:5])]
        if any(bound is None or len(bound) != 1 for bound in bounds):
            return None
        start, end, step = (*(bound[0] for bound in bounds if bound), 1)[:3]
        return slice(start, end, step) if step > 0 else None


def fold_known_shapes(graph: Graph) -> int:
    """Replace what shape arithmetic computes by its value, where it does not depend on the batch."""
    import numpy as np
    from onnx import TensorProto

    sides = _Sides(graph)
    count = 0
    for node in list(graph.nodes):
        name = node.output[0] if node.output else ""
        values = sides.known.get(name)
        shape = graph.shape(name)
        numbers = values is not None and all(isinstance(side, int) for side in values)
        if not numbers or shape is None or graph.kind(name) != TensorProto.INT64 or name in graph.outputs:
            continue
        if not all(isinstance(side, int) for side in shape):
            continue
        graph.remove(node)
        graph.set_constant(name, np.array(values, np.int64).reshape([int(side or 0) for side in shape]))
        count += 1
    return count


def fix_reshapes(graph: Graph) -> int:
    """Give each Reshape a constant target, and let Flatten take the place of what flattens an image.

    The target copies the size of the batch also where that is fixed, so that the graph does not depend on it needlessly.
    """
    sides = _Sides(graph)
    count = 0
    for node in graph.of("Reshape"):
        target = sides.of(node.input[1])
        source = graph.shape(node.input[0])
        if target is None or (attribute(node, "allowzero", 0) and 0 in target):
            continue
        wanted = _target(target, source)
        if wanted is None:
            continue
        if source is not None and _flattens(source, wanted):
            graph.rewire(node, [node.input[0]])
            node.op_type = "Flatten"
            set_attributes(node, axis=1)
            count += 1
        elif list(wanted) != graph.integers(node.input[1]):
            _set_target(graph, node, wanted)
            count += 1
    return count


def _target(target: Shape, source: Shape | None) -> tuple[int, ...] | None:
    """Return the target of a Reshape in numbers; None if that cannot be said."""
    result: list[int] = []
    for axis, side in enumerate(target):
        before = source[axis] if source is not None and axis < len(source) else None
        copied = side == before and side is not None and (isinstance(side, str) or axis == 0)
        result.append(0 if copied else side if isinstance(side, int) else -1)
    return tuple(result) if result.count(-1) <= 1 else None


def _flattens(source: Shape, target: tuple[int, ...]) -> bool:
    """Return whether a Reshape of at least two axes joins all but the first."""
    if len(target) != 2 or len(source) < 2:
        return False
    rest = prod(source[1:]) if all(isinstance(side, int) for side in source[1:]) else None  # type: ignore[arg-type]
    return (target[0] == 0 and target[1] in (-1, rest)) or (target[0] == -1 and target[1] == rest)


def _set_target(graph: Graph, node: onnx.NodeProto, wanted: tuple[int, ...]) -> None:
    import numpy as np

    name = graph.add_constant(f"{node.name}_shape", np.array(wanted, np.int64))
    graph.rewire(node, [node.input[0], name])


def remove_expands(graph: Graph) -> int:
    """Let elementwise operators broadcast by themselves: `x * gate.expand_as(x)` is `x * gate`."""
    count = 0
    for node in graph.of("Expand"):
        reader = graph.only_reader(node.output[0])
        if reader is None or reader.op_type not in ("Add", "Mul", "Sub", "Div"):
            continue
        other = next((name for name in reader.input if name != node.output[0]), "")
        full = graph.shape(other)
        if full is not None and None not in full and full == graph.shape(node.output[0]):
            graph.rewire(reader, [node.input[0] if name == node.output[0] else name for name in reader.input])
            count += 1
    return count
