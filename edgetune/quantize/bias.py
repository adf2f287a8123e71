"""Sequential bias correction: each layer's bias takes up the mean error that quantization makes in its output.

Rounded weights and inputs shift the mean of a layer's output. Layer by layer, in order, with all layers before it quantized and
corrected already, the mean difference to the fp32 output per channel is added to the bias (Nagel et al. 2019, Data-Free
Quantization Through Weight Equalization and Bias Correction, section 4.2, with measured instead of assumed inputs).

The QDQ graph is run once, piece by piece from layer to layer, on a few small batches side by side; only the tensors that later
pieces read stay in memory, and the number of images is bounded by their size.
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

# What all tensors that are alive at once may take, in bytes; and how many images are enough for a mean, however small they are.
MEMORY = 2**28
ENOUGH_IMAGES = 256

Tensors = dict[str, "npt.NDArray[Any]"]


def correct_biases(graph: QuantGraph, batches: Batches, *, progress: Progress) -> QuantGraph:
    """Correct the bias of every quantized Conv and Gemm.

    Args:
        graph: with grids for all activations and weights.
        batches: starts the stream of calibration images; as many are used as the memory bound allows.
        progress: told of each layer.
    """
    layers = [node for node in graph.layers() if node.op_type in ("Conv", "Gemm")]
    pieces = _pieces(to_qdq(graph), [layer.output[0] for layer in layers])
    source = graph.model.graph.input[0].name
    live, expected = _references(graph, layers, batches, _images_that_fit(pieces, {source: next(batches())}))
    images = sum(len(tensors[source]) for tensors in live)
    changed: dict[str, npt.NDArray[np.float32]] = {}
    for done, (layer, piece) in enumerate(zip(layers, pieces, strict=True), start=1):
        live = _run(piece, live)
        name = layer.output[0]
        shift = expected[name] - sum(_channel_sums(tensors[name]) for tensors in live) / sum(_places(t[name]) for t in live)
        # What the int32 bias cannot express is not corrected: the layers after this one must see what the runtime will.
        step = bias_grid(graph, layer)
        shift = (shift / step).round() * step
        for tensors in live:
            shape = [1, -1, *[1] * (tensors[name].ndim - 2)]
            tensors[name] = tensors[name] + shift.reshape(shape).astype(tensors[name].dtype)
        changed[_bias_name(layer)] = (_bias(graph, layer, len(shift)) + shift).astype("float32")
        progress.advance("bias correction", done, len(layers))
    step_note = {"step": "sequential bias correction", "layers": len(layers), "images": images}
    return graph.updated(step_note, model=_with_biases(graph.model, layers, changed))


def _channel_sums(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sum of `[N, C, ...]` over all but the channels."""
    import numpy as np

    sums: npt.NDArray[np.float64] = values.sum(axis=(0, *range(2, values.ndim)), dtype=np.float64)
    return sums


def _places(values: npt.NDArray[Any]) -> int:
    """Return how many values of each channel `[N, C, ...]` has."""
    return int(values.size // values.shape[1])


def _images_that_fit(pieces: list[onnx.ModelProto], batch: Tensors) -> int:
    """Return for how many images the tensors that are alive at once fit the memory, as a first batch shows."""
    live, largest = [batch], 1
    for piece in pieces:
        before = sum(value.nbytes for value in live[0].values())
        live = _run(piece, live)
        # While a piece runs, what it reads and what it writes are alive.
        largest = max(largest, before + sum(value.nbytes for value in live[0].values()))
    return min(ENOUGH_IMAGES, MEMORY * len(next(iter(batch.values()))) // largest)


def _references(
    graph: QuantGraph, layers: list[onnx.NodeProto], batches: Batches, limit: int
) -> tuple[list[Tensors], dict[str, npt.NDArray[np.float64]]]:
    """Return the batches of the first `limit` images, and each layer's fp32 output's mean over them, per channel."""
    names = [layer.output[0] for layer in layers]
    source = graph.model.graph.input[0].name
    images: list[Tensors] = []
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    places = dict.fromkeys(names, 0)
    # Two streams in step: the images themselves, and what the fp32 graph makes of them.
    for batch, values in zip(batches(), stream(graph, names, batches), strict=True):
        if images and sum(len(tensors[source]) for tensors in images) + len(batch) > limit:
            break
        images.append({source: batch})
        for name, value in values.items():
            sums[name] = sums[name] + _channel_sums(value)
            places[name] += _places(value)
    return images, {name: sums[name] / places[name] for name in names}


def _pieces(model: onnx.ModelProto, cuts: list[str]) -> list[onnx.ModelProto]:
    """Return the graph cut behind each named tensor; each piece writes what it or a later piece reads."""
    import onnx

    nodes = list(model.graph.node)
    ends = [next(i for i, node in enumerate(nodes) if cut in node.output) + 1 for cut in cuts]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pieces: list[onnx.ModelProto] = []
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


def _run(piece: onnx.ModelProto, live: list[Tensors]) -> list[Tensors]:
    """Return the tensors that are alive behind a piece: what it wrote, and what later pieces read; batch by batch."""
    import onnxruntime
    from onnx import helper

    for value in piece.graph.input:
        example = live[0][value.name]
        kind = helper.np_dtype_to_tensor_dtype(example.dtype)
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, [None] * example.ndim))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = 1
    needed = set(piece.metadata_props[0].value.split("\n"))
    session = onnxruntime.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in piece.graph.output]
    behind = []
    for tensors in live:
        feed = {value.name: tensors[value.name] for value in piece.graph.input}
        written = dict(zip(names, session.run(names, feed), strict=True))
        behind.append({name: value for name, value in tensors.items() if name in needed} | written)
    return behind


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
