"""Names that do not change from run to run, and nothing in the file that tells of the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["rename", "shape_operators", "strip"]

SHAPE_OPERATORS = ("Shape", "Gather", "Range", "ConstantOfShape", "NonZero")


def strip(model: onnx.ModelProto) -> None:
    """Remove what differs between two runs or tells of the machine: source lines, stack traces, producer versions."""
    model.producer_name, model.producer_version, model.doc_string = "edgetune", "", ""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    model.graph.name = "edgetune"
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


def rename(graph: onnx.GraphProto) -> None:
    """Name each layer after its weight in the checkpoint, every other node by its operator and place, in order.

    No two nodes and no two tensors get the same name. The names of the graph's inputs and outputs stay.
    """
    kept = {value.name: value.name for value in [*graph.input, *graph.output]}
    constants = {tensor.name for tensor in graph.initializer}
    nodes, tensors = _Names(()), _Names(kept)
    new: dict[str, str] = {}
    for node in graph.node:
        weights = [name for name in node.input[1:] if name in constants and name.endswith(".weight")]
        base = weights[0].removesuffix(".weight").removeprefix("network.") if weights else node.op_type.lower()
        node.name = nodes.take(base, numbered=not weights)
        for index, name in enumerate(node.input):
            if name in constants and name not in new:
                new[name] = tensors.take(name.removeprefix("network.") if "." in name else f"{node.name}.in{index}")
        for index, name in enumerate(node.output):
            if name and name not in kept:
                new[name] = tensors.take(f"{node.name}.out{index or ''}")
    new.update(kept)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)


class _Names:
    """Hands out each name once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)
        self.seen: Counter[str] = Counter()

    def take(self, base: str, *, numbered: bool = False) -> str:
        """Return the base itself, unless it is numbered or taken already, or else with the next free number behind it."""
        while True:
            self.seen[base] += 1
            name = base if self.seen[base] == 1 and not numbered else f"{base}_{self.seen[base]}"
            if name not in self.taken:
                self.taken.add(name)
                return name


def shape_operators(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes that compute shapes at run time: none, in a network that was exported well."""
    return [f"{node.name} ({node.op_type})" for node in graph.node if node.op_type in SHAPE_OPERATORS]
