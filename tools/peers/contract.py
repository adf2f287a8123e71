"""What the scripts of the peers share: the float network in front of them, the contract's entry behind them, one line of JSON.

The peers quantize networks that take float images, so each gets the network behind its entry (the bytes' transposition and
scaling) with the same calibration images scaled by that same entry. Afterwards the entry is put back, so that every file takes
`image` and gives `logits`. This module is imported in the peers' own environments: it needs onnx, onnxruntime and numpy only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

__all__ = ["Entry", "Job", "Reader", "main", "put_back", "split"]

ENTRY = ("Transpose", "Cast", "Mul", "Sub", "Div", "Add")
"""Operators that stand between the bytes of an image and the first layer."""


@dataclass(frozen=True)
class Entry:
    """The nodes between the image's bytes and the network, as a model of their own from `image` to the network's input."""

    model: onnx.ModelProto

    @property
    def result(self) -> onnx.ValueInfoProto:
        """What the network takes: float32 `[N, K, H, W]`."""
        result: onnx.ValueInfoProto = self.model.graph.output[0]
        return result

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return images as the network takes them: uint8 `[N, H, W, K]` to float32 `[N, K, H, W]`."""
        session = onnxruntime.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        scaled: npt.NDArray[np.float32] = session.run(None, {"image": images})[0]
        return scaled


@dataclass(frozen=True)
class Job:
    """What a peer is given.

    Attributes:
        network: the fp32 network behind the entry, as a file.
        images: float32 `[N, K, H, W]`, to calibrate with.
        scratch: a folder for whatever the peer writes on its way.
    """

    network: Path
    images: npt.NDArray[np.float32]
    scratch: Path

    @property
    def input_name(self) -> str:
        """The name of the network's input."""
        name: str = onnx.load(self.network).graph.input[0].name
        return name

    def feeds(self) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """Yield the images one by one, as a session takes them."""
        name = self.input_name
        for image in self.images:
            yield {name: image[None]}


class Reader:
    """The images, as the calibrators of ONNX Runtime and onnx-neural-compressor ask for them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.rewind()

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """Return the next image, or None behind the last one."""
        return next(self._feeds, None)

    def rewind(self) -> None:
        """Start again."""
        self._feeds = self._job.feeds()


def split(model: onnx.ModelProto) -> tuple[Entry, onnx.ModelProto]:
    """Cut a model that keeps the contract behind its entry.

    Raises:
        ValueError: no entry of arithmetic on the image alone ends in one float tensor.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    name, length = graph.input[0].name, 0
    for node in graph.node:
        computed = [entry for entry in node.input if entry and entry not in constants]
        if node.op_type not in ENTRY or computed != [name]:
            break
        name, length = node.output[0], length + 1
    if not length:
        raise ValueError(f"the model has no entry to cut off: its first node is a {graph.node[0].op_type}")
    typed = onnx.shape_inference.infer_shapes(model).graph
    cut = next(value for value in typed.value_info if value.name == name)
    if cut.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ValueError(f"the entry does not end in a float tensor: {name}")
    nodes = list(graph.node)
    return (
        Entry(_part(model, nodes[:length], list(graph.input), [cut])),
        _part(model, nodes[length:], [cut], list(graph.output)),
    )


def _part(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = onnx.helper.make_graph(nodes, "part", inputs, outputs, constants)
    return onnx.helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def put_back(entry: Entry, quantized: onnx.ModelProto) -> onnx.ModelProto:
    """Return a quantized network with the entry in front of it again, and its output under the contract's name.

    Raises:
        ValueError: the network has not one input and one output any more.
    """
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(f"the quantized network has {len(inputs)} inputs and {len(graph.output)} outputs, not one of each")
    renamed = {inputs[0]: entry.result.name, graph.output[0].name: "logits"}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    rest = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*entry.model.graph.node, *rest])
    graph.initializer.extend(entry.model.graph.initializer)
    graph.input.extend(entry.model.graph.input)
    graph.output[0].name = "logits"
    return model


def main(package: str, quantize: Callable[[Job, argparse.Namespace], onnx.ModelProto], **flags: str) -> None:
    """Run a peer as the command line says and print one line of JSON: `seconds` of its work alone, and its `version`.

    Args:
        package: the peer's distribution.
        quantize: from a job and the options to the quantized network.
        flags: names of options that are on or off, each with its help.
    """
    parser = argparse.ArgumentParser(description=f"Quantize FP32.onnx with {package}.")
    parser.add_argument("fp32", type=Path, help="A model that keeps the contract: image in, logits out.")
    parser.add_argument("calibration", type=Path, help="uint8 [N, H, W, K], of the model's input.")
    parser.add_argument("output", type=Path, help="Where the int8 model is written.")
    for name, explained in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=explained)
    options = parser.parse_args()
    entry, network = split(onnx.load(options.fp32))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(network, folder / "network.onnx")
        job = Job(folder / "network.onnx", entry(np.load(options.calibration)), folder)
        began = time.perf_counter()
        quantized = quantize(job, options)
        seconds = time.perf_counter() - began
    onnx.save(put_back(entry, quantized), options.output)
    result: dict[str, Any] = {"seconds": round(seconds, 2), "version": version(package)}
    print(json.dumps(result))
