"""The value that every step of the quantizer takes and returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from edgetune.optimised import LAYERS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from edgetune.profile import Quantization

__all__ = ["LAYERS", "Grid", "QuantGraph", "Unsupported", "WeightGrid", "attribute", "integer_limits", "living"]

# Operators with an integer kernel in ONNX Runtime's CPU provider that compute.
COMPUTE = LAYERS | {"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid", "LeakyRelu"}
# Operators that only move values: input and output share one scale.
MOVES = frozenset({"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})
# Activations that disappear into the range of the quantized output of the operator before them.
CLAMPS = frozenset({"Relu", "Clip"})
INTEGER = COMPUTE | MOVES


def integer_limits(kind: str, *, reduce_range: bool = False) -> tuple[int, int]:
    """Return the smallest and largest value of an 8-bit type; with `reduce_range`, of its 7-bit half."""
    low, high = {"uint8": (0, 255), "int8": (-128, 127)}[kind]
    return (low // 2, high // 2) if reduce_range else (low, high)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute of a node, or the default."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def living(nodes: list[onnx.NodeProto], outputs: frozenset[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the outputs depend on, in order."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if set(node.output) & wanted:
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


class Unsupported(Exception):
    """A node that is not computed in torch, so that nothing is learnt through it; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The integers that stand for an activation: real = (integer - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class WeightGrid:
    """A layer's weight in integers.

    Attributes:
        scale: float32, one per channel of `axis`, or of shape `[1]`.
        zero_point: the same for all channels.
        axis: the axis of the output channels.
        values: the integers, in the weight's shape.
    """

    scale: npt.NDArray[np.float32]
    zero_point: int
    axis: int
    values: npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class QuantGraph:
    """An fp32 model and how it is to be quantized.

    Attributes:
        model: in fp32, as `prepare` leaves it; corrected biases take the place of the originals.
        rules: what the target's kernels want.
        activations: per tensor, its grid; filled by calibration.
        weights: per layer (node name), its integer weight.
        left_float: layers (node names) that stay in float, with the reason; `prepare` fills it.
        entry: where the bytes of the image already are the quantized tensor: the tensor's name and that of the bytes.
        steps: what was done, with figures, for the report.
    """

    model: onnx.ModelProto
    rules: Quantization
    activations: Mapping[str, Grid] = field(default_factory=dict)
    weights: Mapping[str, WeightGrid] = field(default_factory=dict)
    left_float: Mapping[str, str] = field(default_factory=dict)
    entry: tuple[str, str] | None = None
    steps: tuple[dict[str, Any], ...] = ()

    def updated(self, step: Mapping[str, Any], **changes: Any) -> QuantGraph:
        """Return a copy with changes, and the step that made them noted."""
        return replace(self, **changes, steps=(*self.steps, dict(step)))

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """The initializers by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor."""
        table: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.model.graph.node:
            for name in node.input:
                table[name].append(node)
        return table

    @cached_property
    def floats(self) -> frozenset[str]:
        """The names of the float32 tensors; shapes and indices are tensors, too."""
        from onnx import TensorProto

        graph = self.model.graph
        values = [*graph.input, *graph.output, *graph.value_info]
        computed = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        return frozenset(computed | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT})

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The names of the graph's outputs."""
        return frozenset(value.name for value in self.model.graph.output)

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an initializer as an array."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name])

    def layers(self) -> list[onnx.NodeProto]:
        """Return the nodes that have a constant weight and are to be quantized, in order."""
        return [node for node in self.model.graph.node if node.op_type in LAYERS and self.is_integer(node)]

    def is_integer(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is to be computed in integers."""
        return node.output[0] in self._integers

    @cached_property
    def _integers(self) -> frozenset[str]:
        """The first output of every node that is to be computed in integers."""
        found: set[str] = set()
        for node in self.model.graph.node:
            if self._becomes_integer(node, found):
                found.add(node.output[0])
        return frozenset(found)

    def _becomes_integer(self, node: onnx.NodeProto, before: Collection[str]) -> bool:
        """Return whether a node is to be computed in integers, given those before it that are."""
        if node.op_type not in INTEGER or node.name in self.left_float:
            return False
        if node.op_type in LAYERS:
            return True
        if len(node.output) > 1 or not self.outputs.isdisjoint(node.input):
            return False
        # Values that come in float are neither moved nor added in integers: rounding them costs time and gains none.
        if not any(self._is_quantized(name, before) for name in node.input):
            return False
        # Arithmetic on constants (the scaling at the entry) is not worth a grid of its own.
        return node.op_type in MOVES or all(name in self.floats and name not in self.constants for name in node.input)

    def _is_quantized(self, name: str, integers: Collection[str]) -> bool:
        """Return whether a tensor comes out of an integer operator."""
        producer = self.producers.get(name)
        if producer is not None and producer.op_type in CLAMPS:
            before = self.producers.get(producer.input[0])
            if before is None or self.clamp_after(before) is not producer:
                return False
            producer = before
        return producer is not None and producer.output[0] in integers

    def clamp_after(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the Relu or Clip that alone reads a node's output, which the output's grid then absorbs."""
        readers = self.consumers[node.output[0]]
        if node.op_type not in COMPUTE or len(readers) != 1 or node.output[0] in self.outputs:
            return None
        limits = self.clamp_limits(readers[0].output[0])
        # Every grid holds zero: one that lies inside the limits is possible only if they do, too.
        absorbs = limits is not None and limits[0] <= 0.0 <= limits[1] and readers[0].output[0] not in self.outputs
        return readers[0] if absorbs else None

    def result_of(self, node: onnx.NodeProto) -> str:
        """Return the tensor that a node's grid belongs to: its output, or that of the clamp it absorbs."""
        name: str = (self.clamp_after(node) or node).output[0]
        return name

    def activation_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Return the inputs of an integer node that need a grid."""
        if node.op_type in LAYERS or node.op_type in MOVES:
            return [node.input[0]]
        return [name for name in node.input if name]

    def activation_names(self) -> list[str]:
        """Return every tensor that needs a grid, in the order of the graph.

        The graph's own outputs are left in float: logits lose most by being rounded and gain nothing.
        """
        names: dict[str, None] = {}
        for node in self.model.graph.node:
            if self.is_integer(node):
                names.update(dict.fromkeys(self.activation_inputs(node)))
                names[self.result_of(node)] = None
        return [name for name in names if name not in self.outputs]

    @cached_property
    def moved(self) -> dict[str, str]:
        """For each tensor that was only moved (flattened, pooled by maximum), the one whose grid it shares."""
        table: dict[str, str] = {}
        for node in self.model.graph.node:
            if node.op_type in MOVES and self.is_integer(node):
                table[node.output[0]] = table.get(node.input[0], node.input[0])
        return table

    def clamp_limits(self, name: str) -> tuple[float, float] | None:
        """Return the limits of the Relu or Clip that a tensor comes out of; None if there is none, or they are computed."""
        producer = self.producers.get(name)
        if producer is None or producer.op_type not in CLAMPS:
            return None
        if producer.op_type == "Relu":
            return 0.0, inf
        bounds = [*producer.input[1:3], "", ""][:2]
        if any(name and name not in self.constants for name in bounds):
            return None
        low, high = (self.array(name).item() if name else default for name, default in zip(bounds, (-inf, inf), strict=True))
        return float(low), float(high)

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that writes each tensor."""
        return {name: node for node in self.model.graph.node for name in node.output}
