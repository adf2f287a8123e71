"""Hard sigmoids and hard swishes: recognised in every spelling, folded into the layer before, or made of integer operators.

A hard sigmoid is Clip(a x + b, 0, 1), a hard swish x times the one with a = 1/6 and b = 1/2 (Howard et al. 2019, Searching for
MobileNetV3, section 5.2).
"""

from __future__ import annotations

from math import isclose, isinf
from typing import TYPE_CHECKING, Any

from edgetune.rewrites.clamps import limits, make_clip
from edgetune.rewrites.graph import Graph, attribute, set_attributes
from edgetune.rewrites.layers import scalable, scale_output

if TYPE_CHECKING:
    import onnx

__all__ = ["fold_hard_sigmoids", "integer_hard_gates", "name_hard_sigmoids"]

# ONNX's own defaults of HardSigmoid.
ALPHA, BETA = 0.2, 0.5
HARD_SWISH = (1.0 / 6.0, 0.5)


def name_hard_sigmoids(graph: Graph) -> int:
    """Make a HardSigmoid of each Clip(a x + b, 0, h) / h, also where the division stands behind a product with it."""
    count = 0
    for node in graph.of("Clip"):
        ends = limits(graph, node)
        if ends is None or ends[0] != 0.0 or not ends[1] > 0.0 or isinf(ends[1]):
            continue
        height = ends[1]
        source, scale, shift, inside = _affine_before(graph, node.input[0])
        if not inside or graph.is_constant(source):
            continue
        if height != 1.0 and not _take_division(graph, node, height):
            continue
        graph.rewire(node, [source])
        for one in inside:
            graph.remove(one)
        node.op_type = "HardSigmoid"
        set_attributes(node, alpha=scale / height, beta=shift / height)
        count += 1
    return count


def _affine_before(graph: Graph, name: str) -> tuple[str, float, float, list[onnx.NodeProto]]:
    """Return x, a, b and the nodes of the single numbers' arithmetic that makes the tensor `name` = a x + b."""
    scale, shift, inside = 1.0, 0.0, []
    while graph.only_reader(name) is not None and (node := graph.producer(name, "Mul", "Div", "Add", "Sub")) is not None:
        index = next((index for index in (0, 1) if graph.scalar(node.input[1 - index]) is not None), None)
        if index is None or (index == 1 and node.op_type in ("Div", "Sub")):
            break
        value = graph.scalar(node.input[1 - index]) or 0.0
        # A number with more axes than the tensor would give it these.
        if len(graph.shape(node.input[1 - index]) or ()) > len(graph.shape(node.input[index]) or ()):
            break
        if node.op_type in ("Mul", "Div"):
            if value == 0.0:
                break
            scale *= value if node.op_type == "Mul" else 1.0 / value
        else:
            shift += scale * (value if node.op_type == "Add" else -value)
        name = node.input[index]
        inside.append(node)
    return name, scale, shift, inside


def _take_division(graph: Graph, clip: onnx.NodeProto, height: float) -> bool:
    """Remove the division by `height` behind a Clip, or behind the only product that reads it; return whether there is one."""
    reader = graph.only_reader(clip.output[0])
    if reader is not None and _divides(graph, reader, clip.output[0], height):
        graph.take_over(clip, reader)
        return True
    if reader is None or reader.op_type != "Mul":
        return False
    behind = graph.only_reader(reader.output[0])
    if behind is None or not _divides(graph, behind, reader.output[0], height):
        return False
    graph.take_over(reader, behind)
    return True


def _divides(graph: Graph, node: onnx.NodeProto, name: str, height: float) -> bool:
    """Return whether a node divides a tensor by a number."""
    if node.op_type not in ("Mul", "Div") or (node.op_type == "Div" and node.input[0] != name):
        return False
    other = node.input[1] if node.input[0] == name else node.input[0]
    value = graph.scalar(other)
    if not value or len(graph.shape(other) or ()) > len(graph.shape(name) or ()):
        return False
    return isclose(value if node.op_type == "Div" else 1.0 / value, height, rel_tol=1e-6)


def fold_hard_sigmoids(graph: Graph) -> int:
    """Move each HardSigmoid into the layer before it, but for its limits, if nothing else reads what that writes."""
    count = 0
    for node in graph.of("HardSigmoid"):
        layer = scalable(graph, node.input[0])
        if layer is not None and scale_output(graph, layer, *_slope(node)):
            make_clip(graph, node, node.input[0], 0.0, 1.0)
            count += 1
    return count


def _slope(node: onnx.NodeProto) -> tuple[float, float]:
    if node.op_type == "HardSwish":
        return HARD_SWISH
    return attribute(node, "alpha", ALPHA), attribute(node, "beta", BETA)


def integer_hard_gates(graph: Graph) -> int:
    """Make each HardSigmoid that is left of a depthwise 1x1 Conv and a Clip, and each HardSwish of these and a product.

    For quantization: ONNX Runtime has integer kernels for these operators, and none for the originals; float32 gains nothing.
    Tensors of other forms than `[N, C, H, W]` and `[N, C]` stay.
    """
    count = 0
    for node in graph.of("HardSigmoid", "HardSwish"):
        shape = graph.shape(node.input[0])
        if shape is None or len(shape) not in (2, 4) or not isinstance(shape[1], int):
            continue
        source, swish = node.input[0], node.op_type == "HardSwish"
        gate = _gate(graph, node, shape[1], flat=len(shape) == 2, last=not swish)
        if swish:
            node.op_type = "Mul"
            set_attributes(node)
            graph.rewire(node, [source, gate])
        count += 1
    return count


def _gate(graph: Graph, node: onnx.NodeProto, channels: int, *, flat: bool, last: bool) -> str:
    """Write Clip(a x + b, 0, 1) of a node's input before it, or in its place if it is the last; return the tensor's name."""
    import numpy as np
    from onnx import helper

    alpha, beta = _slope(node)
    base = node.name if last else f"{node.name}.gate"
    value = node.input[0]

    def add(operator: str, part: str, *inputs: str, **attributes: Any) -> str:
        result = graph.fresh(f"{base}.{part}.out")
        graph.insert(node, helper.make_node(operator, inputs, [result], name=graph.fresh(f"{base}.{part}"), **attributes))
        return result

    if flat:
        value = add("Unsqueeze", "unsqueeze", value, graph.add_constant(f"{base}_axes", np.array([2, 3], np.int64)))
    weight = graph.add_constant(f"{base}.weight", np.full((channels, 1, 1, 1), alpha, np.float32))
    bias = graph.add_constant(f"{base}.bias", np.full(channels, beta, np.float32))
    value = add("Conv", "conv", value, weight, bias, group=channels, kernel_shape=[1, 1])
    if last and not flat:
        make_clip(graph, node, value, 0.0, 1.0)
        return str(node.output[0])
    ends = [graph.add_constant(f"{base}_{end}", np.array(limit, np.float32)) for end, limit in (("min", 0.0), ("max", 1.0))]
    value = add("Clip", "clip", value, *ends)
    if not flat:
        return value
    if not last:
        return add("Flatten", "flatten", value, axis=1)
    node.op_type = "Flatten"
    set_attributes(node, axis=1)
    graph.rewire(node, [value])
    return str(node.output[0])
