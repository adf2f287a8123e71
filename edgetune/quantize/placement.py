"""A quantized graph in QDQ form: quantize and dequantize around every operator that is to run in integers.

One pair stands after each quantized tensor, with a dequantize of its own for each reader, which is the form that ONNX Runtime
fuses into integer operators. Weights and biases are stored as integers. A clamp stands before the pair: its limits
contain the grid, so the runtime drops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, GraphError
from edgetune.quantize.graph import Grid, QuantGraph, WeightGrid, attribute, living

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["bias_grid", "to_qdq"]

INT32 = 2**31 - 1


def to_qdq(graph: QuantGraph) -> onnx.ModelProto:
    """Return the model in QDQ form.

    Raises:
        GraphError: a bias does not fit 32 bits on its grid, with every such layer.
    """
    return _Placement(graph).model()


def bias_grid(graph: QuantGraph, node: onnx.NodeProto) -> npt.NDArray[np.float32]:
    """Return the scale of a layer's int32 bias, fixed by the kernels: input scale x weight scale, per channel."""
    import numpy as np

    scale = np.float32(graph.activations[node.input[0]].scale)
    return (graph.weights[node.name].scale * scale).astype(np.float32)


class _Placement:
    """Writes one model; a class only for the lists that grow along the way."""

    def __init__(self, graph: QuantGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.readers: dict[str, int] = {}
        self.faults: list[Fault] = []
        # Quantized tensors that exist already, under another name: the bytes of the image.
        self.bytes_of: dict[str, str] = {}

    def model(self) -> onnx.ModelProto:
        import onnx

        source = self.graph.model
        model = onnx.ModelProto()
        model.CopyFrom(source)
        for name in [value.name for value in source.graph.input if value.name in self.graph.activations]:
            self._quantize(name)
        for node in source.graph.node:
            self._node(node)
        if self.faults:
            raise GraphError("biases do not fit 32 bits", faults=self.faults, remedy="leave these layers in float")
        nodes = living(self.nodes, self.graph.outputs)
        del model.graph.value_info[:]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in source.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *(tensor for tensor in self.constants if tensor.name in used)])
        return model

    def _node(self, node: onnx.NodeProto) -> None:
        """Write one node, reading dequantized tensors, and the quantization of what it writes."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        is_layer = node.name in self.graph.weights
        for index, name in enumerate(node.input):
            if name in self.graph.activations:
                copy.input[index] = self._dequantized(name, channels=0 if is_layer else self._float_channels(node))
        if is_layer:
            self._layer_inputs(node, copy)
        self.nodes.append(copy)
        for name in node.output:
            if name in self.graph.activations:
                self._quantize(name)

    def _float_channels(self, node: onnx.NodeProto) -> int:
        """Return how many channels a Conv or Gemm that stays in float reads; 0 for every other node."""
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in self.graph.constants:
            return 0
        shape = self.graph.constants[node.input[1]].dims
        if node.op_type == "Conv":
            return int(shape[1]) * int(attribute(node, "group", 1))
        return int(shape[1] if attribute(node, "transB", 0) else shape[0])

    def _layer_inputs(self, node: onnx.NodeProto, copy: onnx.NodeProto) -> None:
        weight = self.graph.weights[node.name]
        copy.input[1] = self._stored(node.name, "weight", weight.values, weight)
        if node.op_type == "MatMul" or len(node.input) < 3 or not node.input[2]:
            return
        import numpy as np

        scale = bias_grid(self.graph, node)
        bias = np.round(self.graph.array(node.input[2]).astype(np.float64) / scale)
        if np.abs(bias).max(initial=0.0) > INT32:
            self.faults.append(Fault(where=node.name, problem="bias too large", got=f"{np.abs(bias).max():.3g}"))
            bias = np.clip(bias, -INT32, INT32)
        grid = WeightGrid(scale=scale, zero_point=0, axis=0, values=bias.astype(np.int32))
        copy.input[2] = self._stored(node.name, "bias", grid.values, grid)

    def _stored(self, layer: str, part: str, values: npt.NDArray[Any], grid: WeightGrid) -> str:
        """Store integers and the node that dequantizes them; return the name of the result."""
        import numpy as np
        from onnx import helper, numpy_helper

        base = f"{layer}.{part}"
        per_channel = grid.scale.size > 1
        zero = np.full(grid.scale.shape, grid.zero_point, values.dtype)
        scale = grid.scale if per_channel else grid.scale.reshape(())
        self.constants += [
            numpy_helper.from_array(np.ascontiguousarray(values), f"{base}.quantized"),
            numpy_helper.from_array(scale, f"{base}.scale"),
            numpy_helper.from_array(zero if per_channel else zero.reshape(()), f"{base}.zero_point"),
        ]
        inputs = [f"{base}.quantized", f"{base}.scale", f"{base}.zero_point"]
        name = f"{base}.dequantized"
        node = helper.make_node("DequantizeLinear", inputs, [name], name=f"{base}.dequantize")
        if per_channel:
            node.attribute.append(helper.make_attribute("axis", grid.axis))
        self.nodes.append(node)
        return name

    def _grid_inputs(self, name: str) -> list[str]:
        return [f"{name}.scale", f"{name}.zero_point"]

    def _quantize(self, name: str) -> None:
        import numpy as np
        from onnx import helper, numpy_helper

        grid: Grid = self.graph.activations[name]
        if self.graph.entry and self.graph.entry[0] == name:
            self.bytes_of[name] = self.graph.entry[1]
        kind = np.uint8 if self.graph.rules.activation_type == "uint8" else np.int8
        self.constants += [
            numpy_helper.from_array(np.array(grid.scale, np.float32), f"{name}.scale"),
            numpy_helper.from_array(np.array(grid.zero_point, kind), f"{name}.zero_point"),
        ]
        if name in self.bytes_of:
            return
        inputs = [name, *self._grid_inputs(name)]
        self.nodes.append(helper.make_node("QuantizeLinear", inputs, [f"{name}.quantized"], name=f"{name}.quantize"))

    def _dequantized(self, name: str, *, channels: int) -> str:
        """Write a dequantize for one more reader of a tensor; return the name of its result.

        Args:
            name: of the tensor.
            channels: of a layer in float that reads it; its scale is then written once for each. ONNX Runtime rounds the weight
                of a float layer between two tensors with one scale (WeightBiasQuantization), with one scale for all channels.
        """
        from onnx import helper

        self.readers[name] = self.readers.get(name, 0) + 1
        result = f"{name}.dequantized_{self.readers[name]}"
        grid = self._grid_per_channel(name, channels) if channels else self._grid_inputs(name)
        inputs = [self.bytes_of.get(name, f"{name}.quantized"), *grid]
        node = helper.make_node("DequantizeLinear", inputs, [result], name=f"{name}.dequantize_{self.readers[name]}")
        if channels:
            node.attribute.append(helper.make_attribute("axis", 1))
        self.nodes.append(node)
        return result

    def _grid_per_channel(self, name: str, channels: int) -> list[str]:
        """Store the scale and zero point of a tensor once for each channel; return the names."""
        import numpy as np
        from onnx import numpy_helper

        grid = self.graph.activations[name]
        kind = np.uint8 if self.graph.rules.activation_type == "uint8" else np.int8
        names = [f"{name}.scale_{channels}", f"{name}.zero_point_{channels}"]
        if names[0] not in {tensor.name for tensor in self.constants}:
            self.constants += [
                numpy_helper.from_array(np.full(channels, grid.scale, np.float32), names[0]),
                numpy_helper.from_array(np.full(channels, grid.zero_point, kind), names[1]),
            ]
        return names
