"""Real models made worse on purpose, for `bench_gate.py`: less accurate, or slower; and what they have right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

__all__ = ["branched", "disturbed", "right"]


def disturbed(network: onnx.ModelProto, strength: float) -> onnx.ModelProto:
    """Return a network with noise on every kernel, in shares of its standard deviation."""
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    rng = np.random.default_rng(0)
    for tensor in copy.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim >= 2:
            noisy = value + strength * value.std() * rng.standard_normal(value.shape)
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
    return copy


def branched(path: Path, rows: int) -> bytes:
    """Return a model's file with more to do: a convolution of some rows, its mean, and almost nothing added to the logits."""
    model = onnx.load(path)
    graph = model.graph
    rng = np.random.default_rng(0)
    columns = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    constants = {"more.kernel": rng.normal(0, 0.1, (4, 3, 3, 3)), "more.weights": rng.normal(0, 1e-9, (4, columns))}
    places = {"more.begin": [0], "more.end": [rows], "more.axis": [1]}
    for node in graph.node:
        node.output[:] = ["logits.before" if name == "logits" else name for name in node.output]
        node.input[:] = ["logits.before" if name == "logits" else name for name in node.input]
    graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items())
    graph.initializer.extend(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in places.items())
    graph.node.extend(
        [
            helper.make_node("Slice", ["image", *places], ["more.rows"]),
            helper.make_node("Cast", ["more.rows"], ["more.float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["more.float"], ["more.planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["more.planes", "more.kernel"], ["more.features"], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["more.features"], ["more.pooled"]),
            helper.make_node("Flatten", ["more.pooled"], ["more.flat"]),
            helper.make_node("MatMul", ["more.flat", "more.weights"], ["more.logits"]),
            helper.make_node("Add", ["logits.before", "more.logits"], ["logits"]),
        ]
    )
    content: bytes = model.SerializeToString()
    return content


def right(network: onnx.ModelProto, pixels: Any, truth: Any) -> Any:
    """Return which images a network has right: bool `[N]`."""
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = [session.run(["logits"], {"image": pixels[i : i + 64]})[0] for i in range(0, len(pixels), 64)]
    return np.concatenate(parts).argmax(axis=1) == truth
