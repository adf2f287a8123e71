"""Sequential bias correction: each layer's bias takes up the mean error that quantization makes in its output.

Rounded weights and inputs shift the mean of a layer's output. Layer by layer, in order, with all layers before it quantized and
corrected already, the mean difference to the fp32 output per channel is added to the bias (Nagel et al. 2019, Data-Free
Quantization Through Weight Equalization and Bias Correction, section 4.2, with measured instead of assumed inputs).

The QDQ graph is run once, piece by piece from layer to layer. The tensors that later pieces read wait on disk, batch by batch,
so that memory holds one batch; the number of images is bounded by the size of these files.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.quantize.calibrate import Batches, stream
from edgetune.quantize.entry import with_constants
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.pieces import Spool, Tensors, advance, after, open_piece, pieces
from edgetune.quantize.placement import bias_grid, to_qdq
from edgetune.quantize.weights import weight_axis

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from edgetune.progress import Progress

__all__ = ["correct_biases", "layer_bias", "with_own_biases"]

# What all tensors that are alive at once may take on disk, in bytes; and how many images are enough for a mean.
DISK = 2**30
ENOUGH_IMAGES = 256


def correct_biases(graph: QuantGraph, batches: Batches, *, scratch: Path, progress: Progress) -> QuantGraph:
    """Correct the bias of every quantized Conv and Gemm.

    Args:
        graph: with grids for all activations and weights.
        batches: starts the stream of calibration images, the classes taking turns; as many are used as the disk bound allows.
        scratch: a folder on a disk, for the tensors between two layers.
        progress: told of each layer.
    """
    graph = with_own_biases(graph)
    layers = [node for node in graph.layers() if node.op_type in ("Conv", "Gemm")]
    if not layers:
        return graph.updated({"step": "sequential bias correction", "layers": 0})
    parts = pieces(to_qdq(graph), [layer.output[0] for layer in layers])
    source = graph.model.graph.input[0].name
    limit = _images_that_fit(parts, {source: next(batches())})
    changed: dict[str, npt.NDArray[np.float32]] = {}
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".tensors-") as folder:
        spool = Spool(Path(folder))
        images, expected = _references(graph, layers, batches, limit, spool)
        for done, (layer, piece) in enumerate(zip(layers, parts, strict=True), start=1):
            name = layer.output[0]
            shift = expected[name] - _run(piece, spool, name)
            # What the int32 bias cannot express is not corrected: the layers after this one must see what the runtime will.
            step = bias_grid(graph, layer)
            shift = (shift / step).round() * step
            spool.pending[name] = shift
            changed[layer.name] = (graph.array(layer.input[2]) + shift).astype("float32")
            progress.advance("bias correction", done, len(layers))
    step_note = {"step": "sequential bias correction", "layers": len(layers), "images": images}
    return with_own_biases(graph, changed).updated(step_note)


def _channel_sums(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sum of `[N, C, ...]` over all but the channels."""
    import numpy as np

    sums: npt.NDArray[np.float64] = values.sum(axis=(0, *range(2, values.ndim)), dtype=np.float64)
    return sums


def _places(values: npt.NDArray[Any]) -> int:
    """Return how many values of each channel `[N, C, ...]` has."""
    return int(values.size // values.shape[1])


def _images_that_fit(parts: list[onnx.ModelProto], batch: Tensors) -> int:
    """Return for how many images the tensors that are alive at once fit the disk, as a first batch shows."""
    images, largest, live = len(next(iter(batch.values()))), 1, batch
    for piece in parts:
        live = after(piece, open_piece(piece, live), live)
        largest = max(largest, sum(value.nbytes for value in live.values()))
    return min(ENOUGH_IMAGES, DISK * images // largest)


def _references(
    graph: QuantGraph, layers: list[onnx.NodeProto], batches: Batches, limit: int, spool: Spool
) -> tuple[int, dict[str, npt.NDArray[np.float64]]]:
    """Store the batches of the first `limit` images; return their number and each layer's fp32 mean over them, per channel."""
    names = [layer.output[0] for layer in layers]
    source = graph.model.graph.input[0].name
    images = 0
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    places = dict.fromkeys(names, 0)
    # Two streams in step: the images themselves, and what the fp32 graph makes of them.
    for batch, values in zip(batches(), stream(graph, names, batches), strict=True):
        if images and images + len(batch) > limit:
            break
        spool.append({source: batch})
        images += len(batch)
        for name, value in values.items():
            sums[name] = sums[name] + _channel_sums(value)
            places[name] += _places(value)
    return images, {name: sums[name] / places[name] for name in names}


def _run(piece: onnx.ModelProto, spool: Spool, name: str) -> npt.NDArray[np.float64]:
    """Run a piece on every batch, and return the mean of one of the tensors that it writes, per channel."""
    total: Any = 0.0
    places = 0
    for live in advance(piece, spool):
        total = total + _channel_sums(live[name])
        places += _places(live[name])
    mean: npt.NDArray[np.float64] = total / places
    return mean


def layer_bias(graph: QuantGraph, layer: onnx.NodeProto) -> npt.NDArray[np.float32] | None:
    """Return the bias of a Conv or Gemm, float32 `[C]`; None if it has none, as every MatMul."""
    if layer.op_type != "MatMul" and len(layer.input) > 2 and layer.input[2]:
        bias: npt.NDArray[np.float32] = graph.array(layer.input[2])
        return bias
    return None


def with_own_biases(graph: QuantGraph, changed: dict[str, npt.NDArray[np.float32]] | None = None) -> QuantGraph:
    """Return the graph with a bias for every quantized Conv and Gemm that is its own; zero where it had none.

    Args:
        graph: with integer weights.
        changed: biases by the layers' names, in place of those that they have.
    """
    import numpy as np

    own: dict[str, npt.NDArray[np.float32]] = {}
    for layer in graph.layers():
        if layer.op_type != "MatMul":
            bias = (changed or {}).get(layer.name, layer_bias(graph, layer))
            channels = graph.array(layer.input[1]).shape[weight_axis(layer)]
            own[layer.name] = np.zeros(channels, np.float32) if bias is None else bias
    model = with_constants(graph.model, {f"{name}.own_bias": bias for name, bias in own.items()})
    for node in model.graph.node:
        if node.name in own:
            del node.input[2:]
            node.input.append(f"{node.name}.own_bias")
    return replace(graph, model=model)
