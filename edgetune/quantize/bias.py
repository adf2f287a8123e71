"""Sequential bias correction: each layer's bias takes up the mean error that quantization makes in its output.

Rounded weights and inputs shift the mean of a layer's output. Layer by layer, in order, with all layers before it quantized and
corrected already, the mean difference to the fp32 output per channel is added to the bias (Nagel et al. 2019, Data-Free
Quantization Through Weight Equalization and Bias Correction, section 4.2, with measured instead of assumed inputs).

The QDQ graph is run once, piece by piece from layer to layer. The tensors that later pieces read wait on disk, batch by batch,
so that memory holds one batch; the number of images is bounded by the size of these files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
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

# What all tensors that are alive at once may take on disk, in bytes; and how many images are enough for a mean.
DISK = 2**30
ENOUGH_IMAGES = 256

Tensors = dict[str, "npt.NDArray[Any]"]


def correct_biases(graph: QuantGraph, batches: Batches, *, scratch: Path, progress: Progress) -> QuantGraph:
    """Correct the bias of every quantized Conv and Gemm.

    Args:
        graph: with grids for all activations and weights.
        batches: starts the stream of calibration images, the classes taking turns; as many are used as the disk bound allows.
        scratch: a folder on a disk, for the tensors between two layers.
        progress: told of each layer.
    """
    layers = [node for node in graph.layers() if node.op_type in ("Conv", "Gemm")]
    pieces = _pieces(to_qdq(graph), [layer.output[0] for layer in layers])
    source = graph.model.graph.input[0].name
    limit = _images_that_fit(pieces, {source: next(batches())})
    changed: dict[str, npt.NDArray[np.float32]] = {}
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".tensors-") as folder:
        spool = _Spool(Path(folder))
        images, expected = _references(graph, layers, batches, limit, spool)
        for done, (layer, piece) in enumerate(zip(layers, pieces, strict=True), start=1):
            name = layer.output[0]
            shift = expected[name] - _run(piece, spool, name)
            # What the int32 bias cannot express is not corrected: the layers after this one must see what the runtime will.
            step = bias_grid(graph, layer)
            shift = (shift / step).round() * step
            spool.pending[name] = shift
            changed[_bias_name(layer)] = (_bias(graph, layer, len(shift)) + shift).astype("float32")
            progress.advance("bias correction", done, len(layers))
    step_note = {"step": "sequential bias correction", "layers": len(layers), "images": images}
    return graph.updated(step_note, model=_with_biases(graph.model, layers, changed))


class _Spool:
    """The tensors that are alive between two pieces, batch by batch, on disk: memory holds one batch, however many there are.

    Attributes:
        pending: per tensor, what is added to its channels when it is read: the correction found after it was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[list[str]] = []
        self.pending: dict[str, npt.NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def append(self, tensors: Tensors) -> None:
        """Store one more batch."""
        self._names.append([])
        self.write(len(self) - 1, tensors)

    def write(self, batch: int, tensors: Tensors) -> None:
        """Store the tensors of a batch in place of those before them."""
        import numpy as np

        self._names[batch] = list(tensors)
        with (self._folder / f"{batch}.npy").open("wb") as file:
            for value in tensors.values():
                np.save(file, value, allow_pickle=False)

    def read(self, batch: int) -> Tensors:
        """Return the tensors of a batch, corrected."""
        import numpy as np

        with (self._folder / f"{batch}.npy").open("rb") as file:
            tensors: Tensors = {name: np.load(file, allow_pickle=False) for name in self._names[batch]}
        for name in self.pending.keys() & tensors.keys():
            value = tensors[name]
            tensors[name] = value + self.pending[name].reshape(1, -1, *[1] * (value.ndim - 2)).astype(value.dtype)
        return tensors


def _channel_sums(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sum of `[N, C, ...]` over all but the channels."""
    import numpy as np

    sums: npt.NDArray[np.float64] = values.sum(axis=(0, *range(2, values.ndim)), dtype=np.float64)
    return sums


def _places(values: npt.NDArray[Any]) -> int:
    """Return how many values of each channel `[N, C, ...]` has."""
    return int(values.size // values.shape[1])


def _images_that_fit(pieces: list[onnx.ModelProto], batch: Tensors) -> int:
    """Return for how many images the tensors that are alive at once fit the disk, as a first batch shows."""
    images, largest, live = len(next(iter(batch.values()))), 1, batch
    for piece in pieces:
        live = _after(piece, _session(piece, live), live)
        largest = max(largest, sum(value.nbytes for value in live.values()))
    return min(ENOUGH_IMAGES, DISK * images // largest)


def _references(
    graph: QuantGraph, layers: list[onnx.NodeProto], batches: Batches, limit: int, spool: _Spool
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


def _session(piece: onnx.ModelProto, example: Tensors) -> Any:
    """Return a session for a piece, whose inputs have the types and ranks of the example."""
    import onnxruntime
    from onnx import helper

    for value in piece.graph.input:
        kind = helper.np_dtype_to_tensor_dtype(example[value.name].dtype)
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, [None] * example[value.name].ndim))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _after(piece: onnx.ModelProto, session: Any, before: Tensors) -> Tensors:
    """Return the tensors that are alive behind a piece: what it wrote, and what later pieces read."""
    names = [value.name for value in piece.graph.output]
    written = session.run(names, {value.name: before[value.name] for value in piece.graph.input})
    needed = set(piece.metadata_props[0].value.split("\n"))
    return {name: value for name, value in before.items() if name in needed} | dict(zip(names, written, strict=True))


def _run(piece: onnx.ModelProto, spool: _Spool, name: str) -> npt.NDArray[np.float64]:
    """Run a piece on every batch, and return the mean of one of the tensors that it writes, per channel."""
    session = _session(piece, spool.read(0))
    total: Any = 0.0
    places = 0
    for batch in range(len(spool)):
        live = _after(piece, session, spool.read(batch))
        total = total + _channel_sums(live[name])
        places += _places(live[name])
        spool.write(batch, live)
    # What was read is corrected now, and is not to be corrected again.
    spool.pending.clear()
    mean: npt.NDArray[np.float64] = total / places
    return mean


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
