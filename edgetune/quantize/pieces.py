"""A graph in pieces, run one after the other: what is alive between two of them waits on disk, batch by batch.

Memory holds one batch, however many images there are; a piece that was changed is run again without those before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["Spool", "Tensors", "advance", "after", "open_piece", "pieces"]

Tensors = dict[str, "npt.NDArray[Any]"]


class Spool:
    """The tensors that are alive between two pieces, batch by batch, on disk.

    Args:
        folder: an empty folder, on a disk.

    Attributes:
        pending: per tensor, what is added to its channels when it is read: a correction found after it was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[list[str]] = []
        self.pending: dict[str, npt.NDArray[np.float64]] = {}

    def __len__(self) -> int:
        """Return the number of batches."""
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


def pieces(model: onnx.ModelProto, cuts: Sequence[str]) -> list[onnx.ModelProto]:
    """Return the graph cut behind each named tensor; each piece writes what it or a later piece reads.

    Args:
        model: nodes in order, constants as initializers.
        cuts: tensors, in the order in which they are written. What is behind the last one is in no piece.
    """
    import onnx

    nodes = list(model.graph.node)
    ends = [next(i for i, node in enumerate(nodes) if cut in node.output) + 1 for cut in cuts]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: list[onnx.ModelProto] = []
    for start, end in zip([0, *ends], ends, strict=False):
        inside, behind = nodes[start:end], nodes[end:]
        written = {name for node in inside for name in node.output}
        read = {name for node in inside for name in node.input if name}
        needed = {name for node in behind for name in node.input}
        piece = onnx.ModelProto(ir_version=model.ir_version)
        piece.opset_import.extend(model.opset_import)
        piece.graph.name = "piece"
        piece.graph.node.extend(inside)
        piece.graph.initializer.extend(constants[name] for name in sorted(read & constants.keys()))
        piece.graph.input.extend(onnx.ValueInfoProto(name=name) for name in sorted(read - constants.keys() - written))
        kept = sorted((written & needed) | {cuts[len(found)]})
        piece.graph.output.extend(onnx.ValueInfoProto(name=name) for name in kept)
        # What later pieces read of the pieces before this one has to live on.
        piece.metadata_props.add(key="needed", value="\n".join(sorted(needed)))
        found.append(piece)
    return found


def open_piece(piece: onnx.ModelProto, example: Tensors) -> Any:
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


def after(piece: onnx.ModelProto, session: Any, before: Tensors) -> Tensors:
    """Return the tensors that are alive behind a piece: what it wrote, and what later pieces read."""
    names = [value.name for value in piece.graph.output]
    written = session.run(names, {value.name: before[value.name] for value in piece.graph.input})
    needed = set(piece.metadata_props[0].value.split("\n"))
    return {name: value for name, value in before.items() if name in needed} | dict(zip(names, written, strict=True))


def advance(piece: onnx.ModelProto, spool: Spool) -> Iterator[Tensors]:
    """Run a piece on every batch, yielding the tensors that are alive behind it; they replace those before it."""
    session = open_piece(piece, spool.read(0))
    for batch in range(len(spool)):
        live = after(piece, session, spool.read(batch))
        spool.write(batch, live)
        yield live
    # What was read is corrected now, and is not to be corrected again.
    spool.pending.clear()
