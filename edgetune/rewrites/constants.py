"""What depends on constants only becomes a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.errors import Fault, GraphError
from edgetune.rewrites.graph import Graph

if TYPE_CHECKING:
    import onnx

__all__ = ["fold_constants", "lift_constants"]

PLAIN_ATTRIBUTES = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
# Each run gives something else, wherever it is computed.
RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


def lift_constants(graph: Graph) -> int:
    """Turn each Constant node into an initializer."""
    import numpy as np
    from onnx import helper, numpy_helper

    count = 0
    for node in graph.of("Constant"):
        item = node.attribute[0] if len(node.attribute) == 1 else None
        if item is None or node.output[0] in graph.outputs:
            continue
        if item.name == "value":
            value = numpy_helper.to_array(item.t)
        elif item.name in PLAIN_ATTRIBUTES:
            value = np.array(helper.get_attribute_value(item), PLAIN_ATTRIBUTES[item.name])
        else:
            continue  # Strings and sparse tensors: no classifier computes with them.
        graph.remove(node)
        graph.set_constant(node.output[0], value)
        count += 1
    return count


def fold_constants(graph: Graph) -> int:
    """Replace what is computed from constants alone by its value, as ONNX Runtime computes it.

    Raises:
        GraphError: ONNX Runtime cannot compute it; it could not compute the whole graph either.
    """
    known: set[str] = set()
    folded: list[onnx.NodeProto] = []
    for node in graph.nodes:
        inputs = [name for name in node.input if name]
        constant = inputs and all(graph.is_constant(name) or name in known for name in inputs)
        if constant and node.op_type not in RANDOM and graph.outputs.isdisjoint(node.output):
            folded.append(node)
            known.update(name for name in node.output if name)
    if folded:
        _compute(graph, folded, known)
    return len(folded)


def _compute(graph: Graph, folded: list[onnx.NodeProto], known: set[str]) -> None:
    """Store what the other nodes read of the folded ones, and remove these."""
    import onnxruntime

    inside = {id(node) for node in folded}
    wanted = [
        name
        for node in folded
        for name in node.output
        if name in known and any(id(reader) not in inside for reader in graph.readers(name))
    ]
    if wanted:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        part = graph.part(folded, wanted)
        try:
            session = onnxruntime.InferenceSession(part, options, providers=["CPUExecutionProvider"])
            values = session.run(wanted, {})
        except Exception as failure:  # The runtime's errors have no class of their own that all of its versions share.
            raise GraphError(
                "the part of the graph that depends on constants only cannot be computed",
                faults=[Fault(where=", ".join(node.name for node in folded[:5]), problem=str(failure)[:300])],
                remedy="export the model again; ONNX Runtime cannot run this file",
            ) from failure
    else:
        values = []
    for node in folded:
        graph.remove(node)
    for name, value in zip(wanted, values, strict=True):
        graph.set_constant(name, value)
