"""Block reconstruction: weights, biases and scales of a few layers at a time are learnt until their output is fp32's again.

Segment by segment, in order (BRECQ, Li et al. 2021, arXiv:2102.05426, with the blocks being whatever lies between two places
where the graph is one tensor wide): the input is what the quantized segments before it really give, run by ONNX Runtime, the
target what the fp32 graph gives, both on the calibration images, without labels. Roundings are learnt straight through, as in
quantization-aware training, rather than by AdaRound's relaxation (Nagel et al. 2020, arXiv:2004.10568): a weight may move by
several steps, and no annealing is needed.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from edgetune.quantize.bias import with_own_biases
from edgetune.quantize.calibrate import Batches
from edgetune.quantize.graph import QuantGraph, Unsupported
from edgetune.quantize.pieces import open_piece, pieces
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.segments import Segment, segments
from edgetune.quantize.torchgraph import TorchGraph, trained

if TYPE_CHECKING:
    import onnx

    from edgetune.progress import Progress

__all__ = ["Learning", "reconstruct"]

IMAGES_AT_ONCE = 8
# More teach little more, and wait on disk and in memory.
MOST_IMAGES = 512
# A layer whose output stays in float (the logits) learns its bias in this part of the output's standard deviation.
OUTPUT_STEP = 1 / 64
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a segment learns.

    Attributes:
        steps: of the optimizer, per segment.
        batch_size: images per step.
        lr: of weights, in steps of their grids; of biases, in steps of their output's grid.
        scale_lr: of the scales of activations, relative.
        least_layers: in a segment.
    """

    steps: int = 150
    batch_size: int = 32
    lr: float = 0.03
    scale_lr: float = 1e-3
    least_layers: int = 3


def reconstruct(
    graph: QuantGraph,
    reference: QuantGraph,
    batches: Batches,
    *,
    learning: Learning,
    seed: int,
    scratch: Path,
    progress: Progress,
) -> QuantGraph:
    """Learn the roundings, biases and scales of every segment.

    Args:
        graph: with grids for all activations and weights.
        reference: the same graph before biases were corrected: what the integers are to give.
        batches: starts the stream of calibration images.
        learning: how.
        seed: draws the batches.
        scratch: a folder on a disk, for the tensors between two segments.
        progress: told of each segment.
    """
    graph = with_own_biases(graph)
    parts = segments(graph, least_layers=learning.least_layers)
    generator = torch.Generator().manual_seed(seed)
    left: list[str] = []
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".tensors-") as folder:
        store = _Store(Path(folder))
        seen = _first(batches, MOST_IMAGES)
        inputs = expected = store.put(seen)
        exact = pieces(reference.model, [part.target for part in parts])
        for done, (part, piece) in enumerate(zip(parts, exact, strict=True), start=1):
            expected = store.run(piece, expected)
            if part.layers:
                try:
                    graph = _learn(graph, part, inputs, expected, learning, generator)
                except Unsupported as reason:
                    left.append(str(reason))
            inputs = store.run(_quantized_piece(graph, parts, done - 1), inputs)
            progress.advance("reconstruction", done, len(parts))
    note = {"step": "block reconstruction", "segments": len(parts), "images": len(seen), "steps": learning.steps}
    return graph.updated({**note, **({"left": left} if left else {})})


def _first(batches: Batches, most: int) -> npt.NDArray[np.uint8]:
    """Return the first images of a stream, at most so many."""
    found: list[npt.NDArray[np.uint8]] = []
    for batch in batches():
        found.append(batch[: most - sum(map(len, found))])
        if sum(map(len, found)) == most:
            break
    return np.concatenate(found)


def _quantized_piece(graph: QuantGraph, parts: list[Segment], index: int) -> onnx.ModelProto:
    """Return a segment in QDQ form, from integers to integers."""
    cuts = [f"{part.target}.quantized" if part.target in graph.activations else part.target for part in parts]
    return pieces(to_qdq(graph), cuts)[index]


class _Store:
    """Arrays on disk, mapped into memory: one per tensor, the images along the first axis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def put(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Store an array."""
        target = self.empty(values.shape, values.dtype)
        target[:] = values
        return target

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Return a new array."""
        self.count += 1
        return np.lib.format.open_memmap(self.folder / f"{self.count}.npy", "w+", dtype, shape)

    def run(self, piece: onnx.ModelProto, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what a piece with one input and one output makes of all images."""
        source, target = piece.graph.input[0].name, piece.graph.output[0].name
        session = open_piece(piece, {source: values[:1]})
        result: npt.NDArray[Any] | None = None
        for first in range(0, len(values), IMAGES_AT_ONCE):
            batch = session.run([target], {source: values[first : first + IMAGES_AT_ONCE]})[0]
            if result is None:
                result = self.empty((len(values), *batch.shape[1:]), batch.dtype)
            result[first : first + len(batch)] = batch
        assert result is not None
        return result


def _learn(
    graph: QuantGraph,
    part: Segment,
    inputs: npt.NDArray[Any],
    expected: npt.NDArray[np.float32],
    learning: Learning,
    generator: torch.Generator,
) -> QuantGraph:
    """Return the graph with one segment learnt."""
    spread = max(float(expected.std()), TINY)
    module = TorchGraph(graph, part.nodes, part.source, part.target, output_step=spread * OUTPUT_STEP)
    grid = graph.activations.get(part.source)
    size = min(learning.batch_size, len(inputs))

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.randperm(len(inputs), generator=generator)[:size].numpy()
        values = torch.from_numpy(inputs[rows])
        if grid is not None and not values.is_floating_point() and part.source != graph.model.graph.input[0].name:
            values = (values.float() - grid.zero_point) * grid.scale
        if values.ndim == 4 and values.is_floating_point():
            values = values.contiguous(memory_format=torch.channels_last)
        return values, torch.from_numpy(expected[rows])

    def loss(got: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return ((got - wanted) / spread).square().mean()

    trained(module, batch, loss, steps=learning.steps, lr=learning.lr, scale_lr=learning.scale_lr)
    return module.result()
