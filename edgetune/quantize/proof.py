"""What really runs in integers: read from the graph that ONNX Runtime itself makes of a file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune.optimised import CONVERSIONS, FLOAT_LAYERS, INTEGER_LAYERS, LAYERS, LAYOUT_OPERATORS, Origins, optimised_model
from edgetune.quantize.graph import INTEGER, MOVES

if TYPE_CHECKING:
    import onnx

    from edgetune.profile import Runtime

__all__ = ["Conversion", "Proof", "optimised_graph"]

MOVERS = MOVES | LAYOUT_OPERATORS

INPUT = "an input of the graph is float"
OUTPUT = "an output of the graph is float"
ENTRY = "computed in front of the first layer"
IN_FLOAT = "computed in float"
MOVED = "moved between two conversions"
UNMATCHED = "has an integer kernel in ONNX Runtime, but not in this form"
NO_KERNEL = "has no integer kernel in ONNX Runtime"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A QuantizeLinear or DequantizeLinear of an activation that the runtime did not fuse away.

    Attributes:
        tensor: what is converted: the float tensor of the file, or what the runtime calls it.
        direction: into integers or out of them.
        operator: what stands on the float side; empty for an input or output of the graph.
        node: its name in the file; empty if it has none there.
        reason: why it is float there.
    """

    tensor: str
    direction: Literal["quantize", "dequantize"]
    operator: str
    node: str
    reason: str

    def __str__(self) -> str:
        """Return the conversion for a person: `relu.out (dequantize): HardSwish act_1 has no integer kernel in …`."""
        because = " ".join(filter(None, (self.operator, self.node, self.reason)))
        return f"{self.tensor} ({self.direction}): {because}"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is left of a graph after the runtime's optimisations.

    Attributes:
        operators: how often each operator stands in it.
        float_layers: the names of the convolutions and matrix products that compute in float: those in the file, or what the
            runtime calls them where that does not tell.
        conversions: between integers and float, in the order of the graph.
        rounded_by_runtime: layers that the file has in float and the runtime computes in integers all the same: it rounds the
            weights of a Conv or Gemm between two conversions, with one scale for all channels (its `WeightBiasQuantization`).
    """

    operators: dict[str, int]
    float_layers: tuple[str, ...]
    conversions: tuple[Conversion, ...]
    rounded_by_runtime: tuple[str, ...] = ()

    def reasons(self) -> dict[str, int]:
        """Return how many conversions each reason has, the most first: `HardSwish has no integer kernel in …` → 28."""
        return dict(Counter(f"{item.operator} {item.reason}".strip() for item in self.conversions).most_common())


def optimised_graph(path: Path, runtime: Runtime) -> Proof:
    """Return what ONNX Runtime's CPU provider makes of a file at the profile's optimisation level, on this machine."""
    import onnx

    model = optimised_model(path, runtime)
    origins = Origins(onnx.load(path), model)
    layers = [node for node in model.graph.node if node.op_type in FLOAT_LAYERS]
    return Proof(
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        float_layers=tuple((origins.of(node) or node).name for node in layers),
        # Parts of one operator each read the same tensor: to the file that is one conversion.
        conversions=tuple(dict.fromkeys(_Conversions(model, origins))),
        rounded_by_runtime=tuple(_rounded_by_runtime(model, origins)),
    )


def _rounded_by_runtime(model: onnx.ModelProto, origins: Origins) -> Iterator[str]:
    for node in model.graph.node:
        origin = origins.of(node) if node.op_type in INTEGER_LAYERS else None
        # In the file, the weight of a layer in integers comes out of a DequantizeLinear.
        if origin is not None and origin.op_type in LAYERS and origins.writer(origin.input[1]) is None:
            yield origin.name


class _Conversions:
    """Lists the conversions of an optimised graph; a class only for the tables that all questions look things up in."""

    def __init__(self, model: onnx.ModelProto, origins: Origins) -> None:
        self.nodes = list(model.graph.node)
        self.origins = origins
        self.constants = {tensor.name for tensor in model.graph.initializer}
        self.writers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def __iter__(self) -> Iterator[Conversion]:
        for node in self.nodes:
            # What a layer in float dequantizes once and for all is its weight, not an activation.
            if node.op_type not in CONVERSIONS or node.input[0] in self.constants:
                continue
            if node.op_type == "QuantizeLinear":
                yield self._conversion(node, self._cause(self.writers.get(node.input[0]), forward=False))
                continue
            readers = self.readers[node.output[0]]
            causes = [self._cause(reader, forward=True) for reader in readers] or [None]
            yield from (self._conversion(node, cause) for cause in causes)

    def _cause(self, node: onnx.NodeProto | None, *, forward: bool) -> onnx.NodeProto | None:
        """Return what computes in float behind nodes that only move values; the first of them if nothing does."""
        first = node
        while node is not None and node.op_type in MOVERS:
            node = next(iter(self.readers[node.output[0]]), None) if forward else self.writers.get(node.input[0])
        return first if node is not None and node.op_type in CONVERSIONS else node

    def _conversion(self, node: onnx.NodeProto, cause: onnx.NodeProto | None) -> Conversion:
        quantizes = node.op_type == "QuantizeLinear"
        origin = None if cause is None else self.origins.of(cause)
        operator = "" if cause is None else cause.op_type
        if cause is not None and origin is not None and (not cause.name or cause.op_type in FLOAT_LAYERS):
            operator = origin.op_type  # A part stands for the whole operator, FusedConv is a Conv.
        return Conversion(
            tensor=self._tensor(node),
            direction="quantize" if quantizes else "dequantize",
            operator=operator,
            node="" if origin is None else origin.name,
            reason=(INPUT if quantizes else OUTPUT) if cause is None else self._reason(cause, operator),
        )

    def _tensor(self, node: onnx.NodeProto) -> str:
        """Return the name of the float tensor that is converted, as the file has it."""
        origin = self.origins.of(node)
        conversion = origin if origin is not None and origin.op_type in CONVERSIONS else node
        if conversion.op_type == "DequantizeLinear":
            conversion = self.origins.writer(conversion.input[0]) or conversion
        return str(conversion.input[0] if conversion.op_type in CONVERSIONS else conversion.output[0])

    def _reason(self, cause: onnx.NodeProto, operator: str) -> str:
        if operator in MOVERS or operator in CONVERSIONS:
            return MOVED
        if cause.op_type in FLOAT_LAYERS:
            return IN_FLOAT
        if self._at_entry(cause):
            return ENTRY
        return UNMATCHED if operator in INTEGER else NO_KERNEL

    def _at_entry(self, node: onnx.NodeProto) -> bool:
        """Return whether a node computes on the graph's input with no layer and no conversion between."""
        waiting = [node]
        seen: set[str] = set()
        while waiting:
            current = waiting.pop()
            if current.op_type in FLOAT_LAYERS | CONVERSIONS or current.op_type.startswith("QLinear"):
                return False
            before = [self.writers[name] for name in current.input if name in self.writers]
            waiting += [writer for writer in before if writer.output[0] not in seen]
            seen.update(writer.output[0] for writer in before)
        return True
