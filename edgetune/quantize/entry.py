"""The graph's entry: an image's bytes already are a quantized tensor, so no float arithmetic is needed before the first layer.

The first layer sees x = k a - b for each byte k, per channel. With z the integer nearest to b / a, x = (k - z) a + (z a - b):
the bytes are the integers of a grid with scale a and zero point z, and the rest is a constant that the bias takes up. That is
exact but where the first layer pads: there it sees z instead of b / a. The rewrite is made only where that is at most half a
step, which is the rounding error that the float entry would make at every pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.quantize.graph import Grid, QuantGraph

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["integer_entry", "with_constants"]

LARGEST_SHIFT = 0.5


def integer_entry(graph: QuantGraph) -> QuantGraph:
    """Make the image's bytes the first layer's quantized input, where that loses nothing."""
    import numpy as np

    found = _find(graph) if graph.rules.activation_type == "uint8" and not graph.rules.symmetric_activations else None
    if found is None:
        return graph.updated({"step": "integer entry", "nodes": 0})
    cast, multiply, subtract, layer = found
    scale = graph.array(multiply.input[1]).astype(np.float64).ravel()
    shift = graph.array(subtract.input[1]).astype(np.float64).ravel()
    common = float(np.float32(scale.mean()))
    zero_points = shift / scale
    zero = round(float(zero_points.mean()))
    if np.abs(zero_points - zero).max() > LARGEST_SHIFT or not 0 <= zero <= 255:
        note = "the channels' means are too far apart for one zero point"
        return graph.updated({"step": "integer entry", "nodes": 0, "reason": note})
    weight = graph.array(layer.input[1]).astype(np.float64) * (scale / common).reshape(1, -1, 1, 1)
    rest = (zero - zero_points) * common
    bias = (weight * rest.reshape(1, -1, 1, 1)).sum(axis=(1, 2, 3))
    if has_bias := len(layer.input) > 2 and bool(layer.input[2]):
        bias += graph.array(layer.input[2]).astype(np.float64)
    bias_name = layer.input[2] if has_bias else f"{layer.name}.entry_bias"
    changed = {
        layer.input[1]: weight.astype(np.float32),
        bias_name: bias.astype(np.float32),
        multiply.input[1]: np.full((1, len(scale), 1, 1), common, np.float32),
        subtract.input[1]: np.full((1, len(scale), 1, 1), np.float32(zero * common), np.float32),
    }
    model = with_constants(graph.model, changed)
    next(node for node in model.graph.node if node.name == layer.name).input[2:] = [bias_name]
    return graph.updated(
        {"step": "integer entry", "nodes": 3},
        model=model,
        activations={**graph.activations, subtract.output[0]: Grid(scale=common, zero_point=zero)},
        entry=(subtract.output[0], cast.input[0]),
    )


def _find(graph: QuantGraph) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto, onnx.NodeProto] | None:
    """Return Cast, Mul and Sub between the image's bytes and the only layer that reads them, or None."""
    chain: list[onnx.NodeProto] = []
    name = graph.model.graph.input[0].name
    for expected in ("Transpose", "Cast", "Mul", "Sub", "Conv"):
        readers = graph.consumers[name]
        if len(readers) != 1 or readers[0].op_type != expected:
            return None
        node = readers[0]
        if expected in ("Mul", "Sub") and (node.input[0] != name or node.input[1] not in graph.constants):
            return None
        chain.append(node)
        name = node.output[0]
    layer = chain[-1]
    rewritten = [chain[2].input[1], chain[3].input[1], *(name for name in layer.input[1:] if name)]
    if any(len(graph.consumers[name]) != 1 for name in rewritten):
        return None  # Another node reads what would be changed.
    if not graph.is_integer(layer) or any(name not in graph.constants for name in rewritten):
        return None
    shapes = [list(graph.constants[node.input[1]].dims) for node in chain[2:4]]
    channels = graph.constants[layer.input[1]].dims[1]
    return (chain[1], chain[2], chain[3], layer) if shapes == [[1, channels, 1, 1]] * 2 else None


def with_constants(model: onnx.ModelProto, changed: dict[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """Return a copy of a model with some initializers replaced, or added."""
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [tensor for tensor in copy.graph.initializer if tensor.name not in changed]
    new = [numpy_helper.from_array(value, name) for name, value in changed.items()]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend([*kept, *new])
    return copy
