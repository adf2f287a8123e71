"""Sequential bias correction: each layer's bias takes up the mean error that quantization makes in its output.

Rounded weights and inputs shift the mean of a layer's output. Layer by layer, in order, with all layers before it quantized and
corrected already, the mean difference to the fp32 output per channel is added to the bias (Nagel et al. 2019, Data-Free
Quantization Through Weight Equalization and Bias Correction, section 4.2, with measured instead of assumed inputs).

The QDQ graph is run once, piece by piece from layer to layer; only the tensors that later pieces read stay in memory, and the
number of images is bounded by the largest of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.quantize.calibrate import Batches, stream
from edgetune.quantize.entry import with_constants
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.placement import bias_grid, to_qdq

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from edgetune.progress import Progress

__all__ = ["correct_biases"]

# The largest activation of all images together, in values: 2^26 float32 are 256 MiB.
LARGEST_TENSOR = 2**26

Tensors = dict[str, "npt.NDArray[Any]"]


def correct_biases(graph: QuantGraph, batches: Batches, *, progress: Progress) -> QuantGraph:
    """Correct the bias of every quantized Conv and Gemm.

    Args:
        graph: with grids for all activations and weights.
        batches: starts the stream of calibration images; as many are used as the memory bound allows.
        progress: told of each layer.
    """
    layers = [node for node in graph.layers() if node.op_type in ("Conv", "Gemm")]
    images, expected = _references(graph, [node.output[0] for node in layers], batches)
    pieces = _pieces(to_qdq(graph), [node.output[0] for node in layers])
    live: Tensors = {graph.model.graph.input[0].name: images}
    changed: dict[str, npt.NDArray[np.float32]] = {}
    for done, (layer, piece) in enumerate(zip(layers, pieces, strict=True), start=1):
        live = _run(piece, live)
        output = live[layer.output[0]]
        shift = expected[layer.output[0]] - _channel_means(output)
        # What the int32 bias cannot express is not corrected: the layers after this one must see what the runtime will.
        step = bias_grid(graph, layer)
        shift = (shift / step).round() * step
        live[layer.output[0]] = output + shift.reshape(1, -1, *[1] * (output.ndim - 2)).astype(output.dtype)
        changed[_bias_name(layer)] = (_bias(graph, layer, len(shift)) + shift).astype("float32")
        progress.advance("bias correction", done, len(layers))
    step_note = {"step": "sequential bias correction", "layers": len(layers), "images": len(images)}
    return graph.updated(step_note, model=_with_biases(graph.model, layers, changed))


def _channel_means(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the mean of `[N, C, ...]` over all but the channels."""
    import numpy as np

    means: npt.NDArray[np.float64] = values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64)
    return means


def _references(
    graph: QuantGraph, names: list[str], batches: Batches
) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float64]]]:
    """Return as many images as memory allows, and the mean of each named fp32 tensor over them, per channel."""
    import numpy as np

    images: list[npt.NDArray[np.uint8]] = []
    sums: dict[str, Any] = {}
    limit = 1
    # Two streams in step: the images themselves, and what the fp32 graph makes of them.
    for batch, values in zip(batches(), stream(graph, names, batches), strict=True):
        if not images:
            largest = max(value[0].size for value in values.values())
            limit = max(len(batch), LARGEST_TENSOR // largest)
        if sum(map(len, images)) + len(batch) > limit:
            break
        images.append(batch)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + _channel_means(value) * len(batch)
    together = np.concatenate(images)
    return together, {name: total / len(together) for name, total in sums.items()}


def _pieces(model: onnx.ModelProto, cuts: list[str]) -> list[onnx.ModelProto]:
    """Return the graph cut behind each named tensor; each piece writes what it or a later piece reads."""
    import onnx

    nodes = list(model.graph.node)
    ends = [next(i for i, node in enumerate(nodes) if cut in node.output) + 1 for cut in cuts]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pieces = []
    for start, end in zip([0, *ends], ends, strict=False):
        inside, after = nodes[start:end], nodes[end:]
        written = {name for node in inside for name in node.output}
        read = {name for node in inside for name in node.input if name}
        needed = {name for node in after for name in node.input}
        piece = onnx.ModelProto(ir_version=model.ir_version)
        piece.opset_import.extend(model.opset_import)
        piece.graph.name = "piece"
        piece.graph.node.extend(inside)
        piece.graph.initializer.extend(constants[name] for name in sorted(read & constants.keys()))
        piece.graph.input.extend(onnx.ValueInfoProto(name=name) for name in sorted(read - constants.keys() - written))
        kept = sorted((written & needed) | {cuts[len(pieces)]})
        piece.graph.output.extend(onnx.ValueInfoProto(name=name) for name in kept)
        # What later pieces read of the pieces before this one has to live on.
        piece.metadata_props.add(key="needed", value="\n".join(sorted(needed)))
        pieces.append(piece)
    return pieces


def _run(piece: onnx.ModelProto, live: Tensors) -> Tensors:
    """Return the tensors that are alive behind a piece: what it wrote, and what later pieces read."""
    import numpy as np
    import onnxruntime
    from onnx import helper

    for value in piece.graph.input:
        kind = helper.np_dtype_to_tensor_dtype(live[value.name].dtype)
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, [None] * live[value.name].ndim))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    needed = set(piece.metadata_props[0].value.split("\n"))
    session = onnxruntime.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in piece.graph.output]
    count = len(next(iter(live.values())))
    parts = []
    for start in range(0, count, 8):
        feed = {value.name: live[value.name][start : start + 8] for value in piece.graph.input}
        parts.append(session.run(names, feed))
    written = {name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(names)}
    return {name: value for name, value in live.items() if name in needed} | written


def _bias_name(layer: onnx.NodeProto) -> str:
    return f"{layer.name}.bias_corrected"


def _bias(graph: QuantGraph, layer: onnx.NodeProto, channels: int) -> npt.NDArray[np.float64]:
    import numpy as np

    if len(layer.input) > 2 and layer.input[2]:
        return graph.array(layer.input[2]).astype(np.float64)
    return np.zeros(channels)


def _with_biases(
    model: onnx.ModelProto, layers: list[onnx.NodeProto], changed: dict[str, npt.NDArray[np.float32]]
) -> onnx.ModelProto:
    copy = with_constants(model, changed)
    wanted = {layer.name: _bias_name(layer) for layer in layers}
    for node in copy.graph.node:
        if node.name in wanted:
            del node.input[2:]
            node.input.append(wanted[node.name])
    return copy
