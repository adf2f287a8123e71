"""All exact rewrites, in an order in which each finds what the others leave to it, until none finds anything more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, GraphError
from edgetune.rewrites.arithmetic import fold_arithmetic, fold_pads
from edgetune.rewrites.batchnorm import depthwise_norms, fold_batch_norms
from edgetune.rewrites.clamps import clip_extremes, merge_clamps
from edgetune.rewrites.constants import fold_constants, lift_constants
from edgetune.rewrites.gates import fold_hard_sigmoids, integer_hard_gates, name_hard_sigmoids
from edgetune.rewrites.gemm import join_matmuls, plain_gemms
from edgetune.rewrites.graph import Graph
from edgetune.rewrites.layers import split_biases
from edgetune.rewrites.nothing import merge_transposes, name_nodes, remove_idle, type_casts
from edgetune.rewrites.opset import at_least
from edgetune.rewrites.pooling import merge_means, pool_means, pool_whole_maps
from edgetune.rewrites.shapes import fix_reshapes, fold_known_shapes, remove_expands

if TYPE_CHECKING:
    import onnx

__all__ = ["integer_gates", "require_flat", "simplify"]

Rewrite = Callable[[Graph], int]
# What was done: a step's name with its figures, as every stage reports them.
Note = dict[str, Any]

REWRITES: tuple[tuple[str, Rewrite], ...] = (
    ("constants to initializers", lift_constants),
    ("casts with a type of their own", type_casts),
    ("nodes without an effect removed", remove_idle),
    ("transposes merged", merge_transposes),
    ("constants folded", fold_constants),
    ("shapes folded", fold_known_shapes),
    ("reshapes with a constant shape", fix_reshapes),
    ("expansions left to broadcasting", remove_expands),
    ("means merged", merge_means),
    ("spatial means to GlobalAveragePool", pool_means),
    ("average pools of whole maps to GlobalAveragePool", pool_whole_maps),
    ("minima and maxima to Clip", clip_extremes),
    ("clamps merged", merge_clamps),
    # Before the arithmetic in them is folded into a layer.
    ("hard sigmoids recognised", name_hard_sigmoids),
    ("products with a bias to Gemm", join_matmuls),
    ("Gemm to its plain form", plain_gemms),
    ("batch norms folded", fold_batch_norms),
    ("constants folded into layers", fold_arithmetic),
    ("pads folded into convolutions", fold_pads),
    ("hard sigmoids folded into layers", fold_hard_sigmoids),
    ("shared biases split", split_biases),
)
INTEGER: tuple[tuple[str, Rewrite], ...] = (
    ("batch norms to depthwise convolutions", depthwise_norms),
    ("hard sigmoids and swishes to integer operators", integer_hard_gates),
)
# Each round makes the graph smaller or plainer; deep chains of shape arithmetic take a few.
MOST_ROUNDS = 50


def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[Note, ...]]:
    """Return a model that computes the same numbers, within rounding, in the form that runtimes fuse best; and what was done.

    Constants are initializers, every node has a name of its own and is needed. What is known of the tensors in between
    (`value_info`) is dropped: it need not be true any more. The model itself is not changed.

    Args:
        model: flat, of any operator set that `opset.at_least` takes, with its weights inside.

    Raises:
        GraphError: there is control flow, a function, or a weight in another file; the operator set cannot be worked with.
    """
    require_flat(model)
    model, converted = at_least(model)
    graph = Graph(model)
    done: dict[str, int] = {}
    name_nodes(graph)
    for _ in range(MOST_ROUNDS):
        changes = _apply(graph, REWRITES, done)
        graph.settle()
        if not changes:
            break
    notes = [{"step": converted}] if converted else []
    return graph.model(), (*notes, *({"step": name, "nodes": done[name]} for name, _ in REWRITES if name in done))


def integer_gates(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[Note, ...]]:
    """Return a simplified model whose gates and left-over batch norms are made of operators with integer kernels.

    For quantization only: the numbers are the same within rounding, but float32 gains nothing.
    """
    done: dict[str, int] = {}
    graph = Graph(model)
    _apply(graph, INTEGER, done)
    graph.settle()
    return graph.model(), tuple({"step": name, "nodes": count} for name, count in done.items())


def _apply(graph: Graph, rewrites: tuple[tuple[str, Rewrite], ...], done: dict[str, int]) -> int:
    """Apply each rewrite once, and count what it did under its name; return the sum."""
    changes = 0
    for name, rewrite in rewrites:
        count = rewrite(graph)
        if count:
            done[name] = done.get(name, 0) + count
            changes += count
    return changes


def require_flat(model: onnx.ModelProto) -> None:
    """Raise unless a model is one flat graph with its weights inside.

    Raises:
        GraphError: with every node that holds a graph, every function and every weight that lies elsewhere.
    """
    from onnx import TensorProto

    nested = [node for node in model.graph.node if any(item.HasField("g") or item.graphs for item in node.attribute)]
    if nested or model.functions:
        faults = [Fault(where=node.name or node.op_type, problem=f"{node.op_type} holds a graph") for node in nested]
        faults += [Fault(where=function.name, problem="is a function of the model's own") for function in model.functions]
        raise GraphError(
            "the graph has control flow or functions of its own, which cannot be quantized",
            faults=faults,
            remedy="export the model again as one flat graph",
        )
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    if outside:
        raise GraphError(
            "weights are in a file of their own",
            faults=[Fault(where=name, problem="is external data") for name in outside[:5]],
            remedy="load the model with its external data, and save it as one file",
        )
