"""Writes small graphs, and compares what two of them compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE = 8, 6


class Writer:
    """Writes a graph from `x`, an image `[N, 8, 6, 6]` unless said, to the tensor that a test gives to `model`."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: Any, dtype: str = "float32", name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def normal(self, *shape: int) -> np.ndarray:
        return self.generator.normal(0.0, 1.0, shape)

    def conv(self, x: str, inputs: int = CHANNELS, *, bias: bool = True, **keys: Any) -> str:
        """Add a 3x3 convolution that keeps the size, unless its keys say otherwise."""
        weight = self.normal(CHANNELS, inputs // keys.get("group", 1), 3, 3) / np.sqrt(inputs * 9)
        extra = [self.const(self.normal(CHANNELS))] if bias else []
        padding = {} if "auto_pad" in keys else {"pads": [1] * 4}
        return self.add("Conv", x, self.const(weight), *extra, **{**padding, **keys})

    def linear(self, x: str, inputs: int = CHANNELS, outputs: int = 5) -> str:
        return self.add("Gemm", x, self.const(self.normal(outputs, inputs)), self.const(self.normal(outputs)), transB=1)

    def norm(self, x: str, channels: int = CHANNELS, **keys: Any) -> str:
        scale, shift, mean = (self.const(self.normal(channels)) for _ in range(3))
        return self.add("BatchNormalization", x, scale, shift, mean, self.const(self.normal(channels) ** 2 + 0.1), **keys)

    def model(
        self, *last: str, shape: Sequence[int | str] = ("N", CHANNELS, SIDE, SIDE), opset: int = 18, ir_version: int = 8
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in last],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
        found = {value.name: value for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output}
        for value in model.graph.output:
            value.type.tensor_type.shape.dim.extend(found[value.name].type.tensor_type.shape.dim)
        return model


def compute(model: onnx.ModelProto, batch: int, seed: int = 1) -> list[np.ndarray]:
    """Return a model's outputs for random inputs, without any optimisation."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    shape = [side if isinstance(side, int) else batch for side in value.shape]
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, shape, np.uint8) if "uint8" in value.type else random.normal(0.0, 2.0, shape)
    return session.run(None, {value.name: images.astype("uint8" if "uint8" in value.type else "float32")})


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(after, full_check=True)
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    for batch in (1, 3):
        for expected, got in zip(compute(before, batch), compute(after, batch), strict=True):
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() <= 3e-6 * max(1.0, np.abs(expected).max())


def names_of(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
