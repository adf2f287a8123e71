"""Nodes that do nothing in inference go: copies, dropout, and casts, pads, moves that change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, attribute, set_attributes

if TYPE_CHECKING:
    import onnx

__all__ = ["merge_transposes", "name_nodes", "remove_idle", "type_casts"]

IDLE = ("Identity", "Dropout", "Cast", "Pad", "Transpose", "Clip", "Flatten", "Expand", "Slice", "Concat", "Sum")


def name_nodes(graph: Graph) -> None:
    """Give every node without a name of its own one: all later steps tell nodes apart by it."""
    taken = {node.name for node in graph.nodes}
    seen = {""}
    for index, node in enumerate(graph.nodes):
        if node.name in seen:
            base = f"{node.name or node.op_type.lower()}_{index}"
            node.name = next(name for name in (base + "_" * extra for extra in range(len(taken) + 2)) if name not in taken)
            taken.add(node.name)
        seen.add(node.name)


def remove_idle(graph: Graph) -> int:
    """Remove the nodes whose output is their input."""
    return sum(graph.bypass(node) for node in graph.of(*IDLE) if graph.alive(node) and _is_idle(graph, node))


def _is_idle(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a node hands on its first input."""
    if node.op_type == "Dropout":
        return _drops_nothing(graph, node)
    if node.op_type == "Cast":
        return graph.kind(node.input[0]) == int(attribute(node, "to"))
    if node.op_type == "Pad":
        pads = graph.integers(node.input[1])
        return pads is not None and not any(pads)
    if node.op_type == "Transpose":
        perm = list(attribute(node, "perm", []))
        return bool(perm) and perm == sorted(perm)
    if node.op_type in ("Expand", "Slice"):
        shape = graph.shape(node.input[0])
        same = shape is not None and None not in shape and shape == graph.shape(node.output[0])
        return same and not _runs_backwards(graph, node)
    if node.op_type == "Flatten":
        return len(graph.shape(node.input[0]) or ()) == 2 and attribute(node, "axis", 1) == 1
    if node.op_type == "Clip":
        return not any(node.input[1:])
    return node.op_type == "Identity" or len(node.input) == 1


def _runs_backwards(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a Slice may turn an axis round."""
    if len(node.input) < 5 or not node.input[4]:
        return False
    steps = graph.integers(node.input[4])
    return steps is None or min(steps) < 0


def _drops_nothing(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a Dropout is one of inference, whose mask nobody reads."""
    if any(graph.readers(name) or name in graph.outputs for name in node.output[1:]):
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    return not training or (graph.is_constant(training) and not graph.array(training).any())


def type_casts(graph: Graph) -> int:
    """Make a Cast of each CastLike: of the tensor that it looks at, only the type matters."""
    count = 0
    for node in graph.of("CastLike"):
        if kind := graph.kind(node.input[1]):
            node.op_type = "Cast"
            graph.rewire(node, node.input[:1])
            set_attributes(node, to=kind)
            count += 1
    return count


def merge_transposes(graph: Graph) -> int:
    """Make one Transpose of two in a row, or none if the second one takes the first one back."""
    count = 0
    for node in graph.of("Transpose"):
        before = graph.producer(node.input[0], "Transpose")
        if before is None:
            continue
        first, second = (list(attribute(one, "perm", [])) for one in (before, node))
        if not first or len(first) != len(second):
            continue
        together = [first[axis] for axis in second]
        # A merged one is worth it only where the first one goes; one that undoes always is.
        if together != sorted(together) and graph.only_reader(before.output[0]) is not node:
            continue
        graph.rewire(node, [before.input[0]])
        set_attributes(node, perm=together)
        count += 1
    return count
