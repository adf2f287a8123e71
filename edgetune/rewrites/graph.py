"""A flat ONNX graph while it is being rewritten: who writes and who reads each tensor, and what is known of it."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgetune.rewrites.inference import LARGEST_SHAPE, Known, Shape, infer, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["Graph", "attribute", "set_attributes"]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute of a node, or the default."""
    from onnx import helper

    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def set_attributes(node: onnx.NodeProto, **values: Any) -> None:
    """Give a node these attributes and no others."""
    from onnx import helper

    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())


class Graph:
    """A copy of a model's graph that rewrites change in place.

    Inputs of nodes are changed by `rewire` and `redirect` only, nodes come and go by `insert` and `remove`, so that readers and
    producers stay true. Shapes are those of the start, or of when it last settled: a tensor that survives keeps its shape.

    Attributes:
        nodes: in an order in which they can be computed.
        inputs: the names of the graph's inputs.
        outputs: the names of the graph's outputs.
        opset: the version of the default operator set.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self._header = onnx.ModelProto()
        self._header.CopyFrom(model)
        for part in (self._header.graph.node, self._header.graph.initializer, self._header.graph.value_info):
            del part[:]
        self.nodes: list[onnx.NodeProto] = []
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        # What is listed as an input but has a value is a default, which no classifier's user replaces: a constant.
        _keep(self._header.graph.input, lambda value: value.name not in self._constants)
        self.inputs = frozenset(value.name for value in self._header.graph.input)
        self.outputs = frozenset(value.name for value in model.graph.output)
        self.opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._producers: dict[str, onnx.NodeProto] = {}
        self._names = {*self._constants, *self.inputs}
        for node in model.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            self.nodes.append(copy)
            self._enter(copy)

    def _enter(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            self._readers[name].append(node)
        for name in node.output:
            if name:
                self._producers[name] = node
                self._names.add(name)

    # --- what is there

    def of(self, *operators: str) -> list[onnx.NodeProto]:
        """Return the nodes of the default domain with these operators, in order; some may be gone when their turn comes."""
        return [node for node in self.nodes if node.op_type in operators and node.domain in ("", "ai.onnx")]

    def alive(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is still part of the graph."""
        return any(self._producers.get(name) is node for name in node.output if name)

    def producer(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Return the node that writes a tensor, if it has one of these operators (or any, if none is given)."""
        node = self._producers.get(name)
        return node if node is not None and (not operators or node.op_type in operators) else None

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor, once for each input."""
        return list(self._readers.get(name, ()))

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the node that alone reads a tensor, once; None if there are others or the graph gives the tensor away."""
        readers = self._readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is an initializer."""
        return name in self._constants

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return a constant's value; it is not to be changed in place."""
        from onnx import numpy_helper

        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._constants[name])
        return self._arrays[name]

    def floats(self, name: str) -> npt.NDArray[np.float64] | None:
        """Return the value of a constant of type float32, in float64; None if the tensor is no such constant."""
        import numpy as np

        if name not in self._constants or self.array(name).dtype != np.float32:
            return None
        return self.array(name).astype(np.float64)

    def scalar(self, name: str) -> float | None:
        """Return the single value of a float32 constant; None if it is something else."""
        value = self.floats(name)
        return float(value.item()) if value is not None and value.size == 1 else None

    def integers(self, name: str) -> list[int] | None:
        """Return a constant of integers as a list; None if the tensor is no such constant."""
        if name not in self._constants or self.array(name).dtype.kind not in "iu":
            return None
        return [int(value) for value in self.array(name).ravel()]

    # --- what is known

    @cached_property
    def _known(self) -> Known:
        """What inference finds; the weights' values say nothing about shapes."""
        small = [tensor for tensor in self._constants.values() if size_of(tensor) <= LARGEST_SHAPE]
        large = [tensor for tensor in self._constants.values() if size_of(tensor) > LARGEST_SHAPE]
        return infer(self._written(small), large)

    def shape(self, name: str) -> Shape | None:
        """Return a tensor's shape; None if not even its rank is known."""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        return self._known.get(name, (0, None))[1]

    def kind(self, name: str) -> int:
        """Return a tensor's `TensorProto.DataType`; 0 if it is not known."""
        return int(self._constants[name].data_type) if name in self._constants else self._known.get(name, (0, None))[0]

    # --- changes

    def fresh(self, base: str) -> str:
        """Return a name that no tensor and no node has, and reserve it: the base itself, or with a number behind it."""
        taken = self._names | {node.name for node in self.nodes}
        number, name = 1, base
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    def add_constant(self, base: str, value: npt.NDArray[Any]) -> str:
        """Add an initializer; return its name."""
        name = self.fresh(base)
        self.set_constant(name, value)
        return name

    def set_constant(self, name: str, value: npt.NDArray[Any]) -> None:
        """Give an initializer a value."""
        import numpy as np
        from onnx import numpy_helper

        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        self._arrays.pop(name, None)
        self._names.add(name)

    def rewire(self, node: onnx.NodeProto, inputs: Iterable[str]) -> None:
        """Let a node read other tensors."""
        for name in node.input:
            self._readers[name] = _without(self._readers[name], node)
        node.input[:] = inputs
        for name in node.input:
            self._readers[name].append(node)

    def redirect(self, old: str, new: str) -> None:
        """Let all readers of a tensor read another one."""
        for node in {id(node): node for node in self.readers(old)}.values():
            self.rewire(node, [new if name == old else name for name in node.input])

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out; what it wrote is free to be written by another one."""
        self.nodes = _without(self.nodes, node)
        for name in node.input:
            self._readers[name] = _without(self._readers[name], node)
        for name in node.output:
            if self._producers.get(name) is node:
                del self._producers[name]

    def insert(self, anchor: onnx.NodeProto, node: onnx.NodeProto, *, behind: bool = False) -> None:
        """Put a new node right before another one, or right behind it."""
        place = next(index for index, other in enumerate(self.nodes) if other is anchor)
        self.nodes.insert(place + behind, node)
        self._enter(node)

    def write(self, node: onnx.NodeProto, name: str) -> None:
        """Let a node write its first output under another name; who read the old one is not changed."""
        if self._producers.get(node.output[0]) is node:
            del self._producers[node.output[0]]
        node.output[0] = name
        self._producers[name] = node
        self._names.add(name)

    def take_over(self, node: onnx.NodeProto, last: onnx.NodeProto) -> None:
        """Remove `last`, and let `node` write its output instead of its own, which nothing else reads."""
        self.remove(last)
        self.write(node, last.output[0])

    def bypass(self, node: onnx.NodeProto) -> bool:
        """Remove a node whose output is its first input; return whether that was possible.

        The names of the graph's outputs are kept: the node before takes them over, unless it is not free to.
        """
        source, result = node.input[0], node.output[0]
        if result not in self.outputs:
            self.remove(node)
            self.redirect(result, source)
            return True
        before = self._producers.get(source)
        if before is None or source in self.outputs:
            return False
        self.remove(node)
        del self._producers[source]
        before.output[:] = [result if name == source else name for name in before.output]
        self._producers[result] = before
        self.redirect(source, result)
        return True

    def settle(self) -> None:
        """Remove the nodes that no output depends on and the constants that nothing reads, and infer the shapes anew."""
        wanted = set(self.outputs)
        unneeded = []
        for node in reversed(self.nodes):
            if wanted.isdisjoint(node.output):
                unneeded.append(node)
            else:
                wanted.update(node.input)
        for node in unneeded:
            self.remove(node)
        self._constants = {name: tensor for name, tensor in self._constants.items() if name in wanted}
        self.__dict__.pop("_known", None)

    def model(self) -> onnx.ModelProto:
        """Return the graph as a model."""
        return self._written(self._constants.values())

    def part(self, nodes: list[onnx.NodeProto], outputs: list[str]) -> bytes:
        """Return some of the nodes as a model of its own, written out, with the constants that they read and no inputs."""
        import onnx

        read = {name for node in nodes for name in node.input if name in self._constants}
        model = onnx.ModelProto(ir_version=self._header.ir_version)
        model.opset_import.extend(self._header.opset_import)
        model.graph.name = "part"
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(self._constants[name] for name in sorted(read))
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        written: bytes = model.SerializeToString()
        return written

    def _written(self, constants: Iterable[onnx.TensorProto]) -> onnx.ModelProto:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._header)
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(constants)
        return model


def _without(nodes: list[onnx.NodeProto], gone: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return a list without one node; comparing messages by value would be slow, and wrong for twins."""
    return [node for node in nodes if node is not gone]


def _keep(values: Any, wanted: Any) -> None:
    """Shorten a repeated field to the entries that are wanted."""
    kept = [value for value in values if wanted(value)]
    del values[:]
    values.extend(kept)
