"""The stage: an fp32 ONNX file and images in, an int8 ONNX file out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Dataset, OnnxModel, sha256_file, write_atomic
from edgetune.device.session import open_session
from edgetune.errors import DataError, GraphError
from edgetune.numeric import compare_logits, spread_rows
from edgetune.onnxfile import read_metadata, write_metadata
from edgetune.quantize.bias import correct_biases
from edgetune.quantize.calibrate import Batches, calibrate
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.proof import optimised_graph
from edgetune.quantize.weights import round_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgetune.profile import Profile
    from edgetune.progress import Progress
    from edgetune.recipe import QuantizeRecipe

__all__ = ["calibration_rows", "quantize"]

# Images per calibration batch: few, since every activation of the batch is alive at once.
PIXELS_PER_BATCH = 8 * 96 * 96
PARITY_IMAGES = 256

Step = Callable[[QuantGraph], QuantGraph]


def quantize(
    source: OnnxModel,
    dataset: Dataset,
    recipe: QuantizeRecipe,
    profile: Profile,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
) -> OnnxModel:
    """Quantize an fp32 ONNX classifier as the target's kernels want it.

    Args:
        source: the fp32 model; it keeps the contract of the input and output.
        dataset: the train images calibrate, the test images measure the parity.
        recipe: how many images, which ranges, which corrections.
        profile: the types and the session that the target runs.
        seed: draws the calibration images.
        folder: where `model.onnx` is written.
        progress: told of each step.

    Raises:
        DataError: no train image is left to calibrate with.
        GraphError: the graph has no layer that can be quantized.
    """
    import onnx

    rows, dropped = calibration_rows(dataset, recipe.calibration_images, seed)
    batches = _batches(dataset, rows)
    graph = QuantGraph(model=onnx.load(source.path), rules=profile.quantization)
    if not graph.layers():
        raise GraphError("the graph has no convolution or matrix product with a constant weight; there is nothing to quantize")
    steps: list[Step] = [
        integer_entry,
        lambda g: calibrate(g, batches, method=recipe.ranges, progress=progress, total=len(rows)),
        round_weights,
    ]
    if recipe.bias_correction:
        steps.append(lambda g: correct_biases(g, batches, progress=progress))
    for step in steps:
        started = time.monotonic()
        graph = step(graph)
        progress.line(f"{graph.steps[-1]['step']}: {time.monotonic() - started:.1f} s")
    model = to_qdq(graph)
    _, _, provenance = read_metadata(model)
    write_metadata(model, source.classes, source.preprocessing, {**provenance, "fp32_sha256": source.sha256})
    path = folder / "model.onnx"
    write_atomic(path, model.SerializeToString(deterministic=True))
    if dropped:
        progress.line(f"{dropped} calibration images are also in the test set and were left out")
    return _described(path, source, dataset, profile, graph)


def _described(path: Path, source: OnnxModel, dataset: Dataset, profile: Profile, graph: QuantGraph) -> OnnxModel:
    """Return the value of the stage: the file, its parity with fp32, and what the runtime makes of it."""
    proof = optimised_graph(path, profile.runtime)
    wanted = {layer.name for layer in graph.layers()}
    unexpected = [name for name in proof.float_convolutions if name.split("_nchwc")[0] in wanted or name not in graph.left_float]
    warnings = ()
    if unexpected:
        warnings = (f"ONNX Runtime still computes {len(unexpected)} convolutions in float: {', '.join(unexpected[:5])}",)
    return OnnxModel(
        stage_name="quantize",
        precision="int8",
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        opset=source.opset,
        ir_version=source.ir_version,
        classes=source.classes,
        preprocessing=source.preprocessing,
        parity=_parity(source.path, path, dataset),
        steps=graph.steps,
        float_nodes=(*unexpected, *(f"{name}: {why}" for name, why in graph.left_float.items())),
        operators=proof.operators,
        macs=source.macs,
        warnings=warnings,
    ).at(path.parent)  # type: ignore[no-any-return]


def _parity(fp32: Path, int8: Path, dataset: Dataset) -> Any:
    import numpy as np

    rows = spread_rows(dataset.counts["test"], PARITY_IMAGES)
    images = np.array(dataset.images("test")[rows])
    names = dataset.names("test")
    logits = []
    for path in (fp32, int8):
        session = open_session(path, {"providers": ["CPUExecutionProvider"], "graph_optimization": "all", "intra_op_threads": 1})
        logits.append(np.concatenate([session.run(["logits"], {"image": image[None]})[0] for image in images]))
    return compare_logits(logits[0], logits[1], [names[row] for row in rows])


def calibration_rows(dataset: Dataset, wanted: int, seed: int) -> tuple[list[int], int]:
    """Return rows of the train split to calibrate with, and how many were dropped for being test images, too.

    The classes take turns, each in an order drawn from the seed, so that every class has the same number of images as far as
    its images go.

    Raises:
        DataError: none is left.
    """
    import numpy as np

    labels = np.asarray(dataset.labels("train"))
    generator = np.random.default_rng(seed)
    queues = [list(generator.permutation(np.flatnonzero(labels == label))) for label in range(len(dataset.classes))]
    order = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    test = {hash(image.tobytes()) for image in dataset.images("test")}
    images = dataset.images("train")
    rows: list[int] = []
    dropped = 0
    for row in order:
        if len(rows) == wanted:
            break
        if hash(np.asarray(images[row]).tobytes()) in test:
            dropped += 1
        else:
            rows.append(int(row))
    if not rows:
        raise DataError("no train image is left to calibrate with: all are in the test set, too", remedy="keep the sets apart")
    return sorted(rows), dropped


def _batches(dataset: Dataset, rows: list[int]) -> Batches:
    """Return what starts the stream of calibration images.

    The file is mapped anew for each batch: pages that were read would otherwise count as this process's memory until the end.
    """
    import numpy as np

    spec = dataset.preprocessing
    size = max(1, PIXELS_PER_BATCH // (spec.height * spec.width))

    def start() -> Iterator[npt.NDArray[np.uint8]]:
        for first in range(0, len(rows), size):
            yield np.array(dataset.images("train")[rows[first : first + size]])

    return start
