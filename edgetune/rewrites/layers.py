"""Layers with a constant weight, and per-channel arithmetic that moves into it.

A layer's output y becomes s y + t, per channel, by multiplying its weight's output channels by s and making its bias s b + t.
All is computed in float64 and rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, attribute

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["channels", "per_channel", "scalable", "scale_output", "set_bias", "set_weight", "split_biases", "weight_axis"]


def weight_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a layer's output channels in its weight."""
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def channels(graph: Graph, node: onnx.NodeProto) -> int:
    """Return the number of a layer's output channels."""
    return int(graph.array(node.input[1]).shape[weight_axis(node)])


def scalable(graph: Graph, name: str) -> onnx.NodeProto | None:
    """Return the Conv or Gemm that writes a tensor, if its constants are float32 and a single node reads the tensor."""
    import numpy as np

    node = graph.producer(name, "Conv", "Gemm")
    if node is None or graph.only_reader(name) is None or graph.floats(node.input[1]) is None:
        return None
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0):
        return None
    if not _has_bias(node):
        return node
    bias = graph.floats(node.input[2])
    return node if bias is not None and np.shape(bias) == (channels(graph, node),) else None


def scale_output(
    graph: Graph, node: onnx.NodeProto, scale: npt.NDArray[np.float64] | float, shift: npt.NDArray[np.float64] | float
) -> bool:
    """Let a layer compute scale * y + shift instead of y.

    Args:
        graph: the graph.
        node: a layer that `scalable` returned.
        scale: per output channel `[C]`, or for all.
        shift: per output channel `[C]`, or for all.

    Returns:
        False if float32 cannot hold the result; nothing is changed then.
    """
    import numpy as np

    axis, count = weight_axis(node), channels(graph, node)
    old = graph.array(node.input[1])
    shape = [-1 if index == axis else 1 for index in range(old.ndim)]
    before = graph.array(node.input[2]).astype(np.float64) if _has_bias(node) else np.zeros(count)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (old * np.broadcast_to(scale, count).astype(np.float64).reshape(shape)).astype(np.float32)
        bias = (before * scale + shift).astype(np.float32)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()) and np.isfinite(old).all() and np.isfinite(before).all():
        return False
    # The bias first: a new one is named after the weight's old name.
    if _has_bias(node) or np.any(bias):
        set_bias(graph, node, bias)
    if np.any(np.asarray(scale) != 1.0):
        set_weight(graph, node, weight)
    return True


def set_weight(graph: Graph, node: onnx.NodeProto, weight: npt.NDArray[np.float32]) -> None:
    """Give a layer another weight."""
    _own(graph, node, 1, weight)


def set_bias(graph: Graph, node: onnx.NodeProto, bias: npt.NDArray[np.float32]) -> None:
    """Give a layer a bias of its own `[C]`."""
    if _has_bias(node):
        _own(graph, node, 2, bias)
    else:
        graph.rewire(node, [*node.input[:2], graph.add_constant(_parameter(node, 2), bias)])


def split_biases(graph: Graph) -> int:
    """Give each layer a bias of its own: two layers with equal ones may have been given the same tensor.

    The first one keeps the name. Later steps change the bias of one layer at a time.
    """
    count = 0
    seen: set[str] = set()
    layers = [node for node in graph.of("Conv", "Gemm") if _has_bias(node) and graph.is_constant(node.input[2])]
    for node in layers:
        name = node.input[2]
        if name not in seen and all(any(reader is layer for layer in layers) for reader in graph.readers(name)):
            seen.add(name)
            continue
        graph.rewire(node, [*node.input[:2], graph.add_constant(_parameter(node, 2), graph.array(name))])
        count += 1
    return count


def per_channel(value: npt.NDArray[np.float64], rank: int, count: int) -> npt.NDArray[np.float64] | None:
    """Return what a constant is for each channel `[C]` of the `[N, C, ...]` that it is broadcast to; None if places differ."""
    import numpy as np

    if value.ndim > rank:
        return None
    aligned = value.reshape((1,) * (rank - value.ndim) + value.shape)
    if any(side != 1 for axis, side in enumerate(aligned.shape) if axis != 1) or aligned.shape[1] not in (1, count):
        return None
    return np.broadcast_to(aligned.ravel(), count)


def _has_bias(node: onnx.NodeProto) -> bool:
    return len(node.input) > 2 and bool(node.input[2])


def _own(graph: Graph, node: onnx.NodeProto, index: int, value: npt.NDArray[np.float32]) -> None:
    """Replace a parameter of a layer: under the same name, unless somebody else reads it, too."""
    name = node.input[index]
    if len(graph.readers(name)) == 1:
        graph.set_constant(name, value)
        return
    inputs = list(node.input)
    inputs[index] = graph.add_constant(_parameter(node, index), value)
    graph.rewire(node, inputs)


def _parameter(node: onnx.NodeProto, index: int) -> str:
    """Return a name for a new parameter of a layer, such as torch would give it."""
    base = node.input[1].removesuffix(".weight") if node.input[1].endswith(".weight") else node.name
    return f"{base}.{'weight' if index == 1 else 'bias'}"
