"""From any ONNX classifier to a `QuantGraph`: one form for all later steps, and which layers cannot be quantized and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from edgetune.errors import Fault, GraphError
from edgetune.quantize.graph import LAYERS, MOVES, QuantGraph, attribute
from edgetune.rewrites.simplify import integer_gates, simplify

if TYPE_CHECKING:
    import onnx

    from edgetune.profile import Quantization

__all__ = ["prepare"]


def prepare(model: onnx.ModelProto, rules: Quantization) -> QuantGraph:
    """Return a model in the form that all later steps rely on; the model itself is not changed.

    It is simplified, its gates are made of integer operators, and the types of tensors are known; see `edgetune.rewrites`.

    Args:
        model: in fp32.
        rules: what the target's kernels want.

    Raises:
        GraphError: the operator set cannot be worked with, there is control flow, a weight is not finite, or no layer can be
            quantized.
    """
    import onnx

    plain, notes = simplify(model)
    gated, more = integer_gates(plain)
    found = QuantGraph(model=onnx.shape_inference.infer_shapes(gated), rules=rules, steps=(*notes, *more))
    _require_finite(found)
    reasons = {node.name: obstacle(found, node) for node in found.model.graph.node if node.op_type in LAYERS}
    found = replace(found, left_float={name: reason for name, reason in reasons.items() if reason})
    if not found.layers():
        raise GraphError(
            "the graph has nothing to quantize: no Conv, Gemm or MatMul with a constant weight",
            faults=[Fault(where=name, problem=reason) for name, reason in found.left_float.items()],
            remedy="set quantize.precision = fp32, or choose another backbone",
        )
    others = _other_operators(found)
    return found.updated({"step": "operators without an integer kernel", "nodes": others}) if others else found


def obstacle(graph: QuantGraph, node: onnx.NodeProto) -> str:
    """Return why a Conv, Gemm or MatMul cannot be quantized; empty if it can."""
    if node.input[1] not in graph.constants:
        return "both of its inputs are computed; only products with a constant weight are quantized"
    if node.input[0] not in graph.floats or node.input[1] not in graph.floats:
        return "it does not compute in float32"
    if {node.input[0], node.output[0]} & graph.outputs and node.op_type == "Conv":
        return "it writes an output of the graph, which stays in float"
    if node.input[0] in graph.outputs:
        return "it reads an output of the graph, which stays in float"
    shape = list(graph.constants[node.input[1]].dims)
    if node.op_type != "Conv" and len(shape) != 2:
        return f"its weight has {len(shape)} dimensions, not 2"
    if node.op_type == "Gemm" and (attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0):
        return "it transposes or scales its input"
    if len(node.input) < 3 or not node.input[2]:
        return ""
    if node.op_type == "Gemm" and attribute(node, "beta", 1.0) != 1.0:
        return "it scales its bias"
    if node.input[2] not in graph.constants:
        return "its bias is computed"
    channels = shape[0] if node.op_type == "Conv" or attribute(node, "transB", 0) else shape[1]
    bias = list(graph.constants[node.input[2]].dims)
    return "" if bias == [channels] else f"its bias has the shape {bias}, not [{channels}]"


def _other_operators(graph: QuantGraph) -> dict[str, int]:
    """Return how often each operator computes in float behind the first layer: its runtime has no integer kernel for it."""
    reached: set[str] = set()
    left: Counter[str] = Counter()
    for node in graph.model.graph.node:
        if not (graph.is_integer(node) or reached & set(node.input)):
            continue
        reached.update(node.output)
        before = graph.producers.get(node.input[0])
        absorbed = before is not None and graph.is_integer(before) and graph.clamp_after(before) is node
        computes = node.op_type not in MOVES and node.output[0] in graph.floats
        if computes and not absorbed and not graph.is_integer(node):
            left[node.op_type] += 1
    return dict(sorted(left.items()))


def _require_finite(graph: QuantGraph) -> None:
    import numpy as np

    used = {name: node.name for node in graph.model.graph.node if node.op_type in LAYERS for name in node.input[1:]}
    faults = [
        Fault(where=used[name], problem=f"{name} holds NaN or an infinity")
        for name in sorted(used.keys() & graph.constants.keys() & graph.floats)
        if not np.isfinite(graph.array(name)).all()
    ]
    if faults:
        raise GraphError("weights are not finite", faults=faults, remedy="train again; the model is of no use in fp32 either")
