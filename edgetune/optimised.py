"""What ONNX Runtime makes of a file, and the way back from its nodes to those of the file.

The runtime fuses, splits and moves nodes. What stays is most of a name: `conv_3` becomes `conv_3_token_18`, and a convolution
in a blocked layout has the name of the tensor that it writes, `clip_3.out_nchwc`, be it that of the activation fused into it.
Nodes that the runtime splits an operator into have no name at all. Up to ONNX Runtime 1.19 an integer convolution has none of
the file's, but it still reads the file's weight.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.device.session import GRAPH_OPTIMIZATIONS

if TYPE_CHECKING:
    import onnx

    from edgetune.profile import Runtime

__all__ = ["CONVERSIONS", "FLOAT_LAYERS", "INTEGER_LAYERS", "LAYERS", "LAYOUT_OPERATORS", "Origins", "optimised_model"]

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
"""What a file calls an operator with a weight: what integer inference is about."""
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
INTEGER_LAYERS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul"})
"""What it calls one that computes in integers; the fourth input is its weight."""
FLOAT_LAYERS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
"""What ONNX Runtime calls a convolution or matrix product that computes in float."""
LAYOUT_OPERATORS = frozenset({"Transpose", "ReorderInput", "ReorderOutput"})
"""What it puts between nodes that want their tensors laid out differently."""
ENDS_OF_WORDS = re.compile(r"[^A-Za-z0-9]")


def optimised_model(path: Path, runtime: Runtime) -> onnx.ModelProto:
    """Return the model that ONNX Runtime's CPU provider makes of a file; only this machine's runtime can run it."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        level = GRAPH_OPTIMIZATIONS[runtime.graph_optimization]
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(target)
        options.intra_op_num_threads = 1
        for key, value in runtime.config.items():
            options.add_session_config_entry(key, value)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(target)


class Origins:
    """Finds the node of a file that a node of the optimised graph comes from.

    Args:
        source: the model in the file.
        optimised: what the runtime made of it.
    """

    def __init__(self, source: onnx.ModelProto, optimised: onnx.ModelProto) -> None:
        self._nodes: dict[str, onnx.NodeProto] = {node.name: node for node in source.graph.node if node.name}
        self._writers: dict[str, onnx.NodeProto] = {name: node for node in source.graph.node for name in node.output}
        self._layers = {self._weight(node): node for node in source.graph.node if node.op_type in LAYERS}
        self._readers: dict[str, onnx.NodeProto] = {}
        for node in optimised.graph.node:
            for name in node.input:
                self._readers.setdefault(name, node)

    def of(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the node of the file, or None for one that the runtime made up, such as a change of layout."""
        if not node.name:
            return self._whole(node)
        found = self._find(node.name)
        if found is None and node.op_type in INTEGER_LAYERS:
            return self._layers.get(node.input[3])
        if found is not None and node.op_type in FLOAT_LAYERS and found.op_type not in LAYERS:
            return self._layer_before(found) or found
        return found

    def writer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node of the file that writes a tensor."""
        return self._writers.get(tensor)

    def _weight(self, layer: onnx.NodeProto) -> str:
        """Return the tensor that holds a layer's weight, before it is dequantized."""
        writer = self._writers.get(layer.input[1])
        return str(writer.input[0] if writer is not None and writer.op_type == "DequantizeLinear" else layer.input[1])

    def _find(self, name: str) -> onnx.NodeProto | None:
        """Return what has the longest name that the given one begins with, up to the end of a word."""
        for end in [len(name), *(match.start() for match in reversed(list(ENDS_OF_WORDS.finditer(name))))]:
            for known in (self._nodes, self._writers):
                if name[:end] in known:
                    return known[name[:end]]
        return None

    def _whole(self, part: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the operator that a nameless node is a part of: what the next node with a name reads in the file."""
        tensor = part.output[0]
        for _ in range(len(self._readers)):
            reader = self._readers.get(tensor)
            if reader is None:
                return self._computes(tensor)
            origin = self._find(reader.name)
            if origin is not None:
                place = list(reader.input).index(tensor) if origin.op_type == reader.op_type else 0
                return self._computes(origin.input[place])
            tensor = reader.output[0]
        return None

    def _computes(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node of the file that computes a tensor, conversions apart."""
        node = self._writers.get(tensor)
        while node is not None and node.op_type in CONVERSIONS:
            node = self._writers.get(node.input[0])
        return node

    def _layer_before(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the layer on whose result a node computes; a layer that the runtime fused it into."""
        before: onnx.NodeProto | None = node
        for _ in range(len(self._nodes)):
            if before is None or before.op_type in LAYERS:
                return before
            before = next((self._writers[name] for name in before.input if name in self._writers), None)
        return None
