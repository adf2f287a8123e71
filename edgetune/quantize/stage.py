"""The stage: an fp32 ONNX file and images in, an int8 ONNX file out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Dataset, NumericParity, OnnxModel, Split
from edgetune.device.session import open_session
from edgetune.errors import DataError
from edgetune.files import sha256_file, write_atomic
from edgetune.numeric import PLAIN_SESSION, compare_logits, spread_rows
from edgetune.onnxfile import read_metadata, write_metadata
from edgetune.quantize.bias import correct_biases
from edgetune.quantize.calibrate import Batches, calibrate
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.graph import LAYERS, QuantGraph
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.prepare import prepare
from edgetune.quantize.proof import Proof, optimised_graph
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
IMAGES_AT_ONCE = 16
NOT_FUSED = "quantized, but ONNX Runtime has no integer kernel for it in this form"

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
        GraphError: the graph has no layer that can be quantized, or is of a form that cannot be.
    """
    import onnx

    rows, dropped = calibration_rows(dataset, recipe.calibration_images, seed)
    batches = _batches(dataset, rows)
    graph = prepare(onnx.load(source.path), profile.quantization)
    steps: list[Step] = [
        integer_entry,
        lambda g: calibrate(g, batches, method=recipe.ranges, progress=progress, total=len(rows)),
        round_weights,
    ]
    if recipe.bias_correction:
        steps.append(lambda g: correct_biases(g, batches, scratch=folder, progress=progress))
    for step in steps:
        started = time.monotonic()
        graph = step(graph)
        progress.line(f"{graph.steps[-1]['step']}: {time.monotonic() - started:.1f} s")
    model = to_qdq(graph)
    provenance = read_metadata(model).provenance
    write_metadata(model, source.heads, source.preprocessing, {**provenance, "fp32_sha256": source.sha256})
    path = folder / "model.onnx"
    write_atomic(path, model.SerializeToString(deterministic=True))
    warnings = (f"{dropped} train images are also in the test set and were left out of the calibration",) if dropped else ()
    return _described(path, source, dataset, profile, graph, warnings)


def _described(
    path: Path, source: OnnxModel, dataset: Dataset, profile: Profile, graph: QuantGraph, warnings: tuple[str, ...]
) -> OnnxModel:
    """Return the value of the stage: the file, its parity with fp32, and what the runtime makes of it."""
    proof = optimised_graph(path, profile.runtime)
    unexpected, expected = _float_layers(graph, proof)
    if unexpected:
        warnings = (*warnings, f"ONNX Runtime still computes {len(unexpected)} layers in float: {', '.join(unexpected[:5])}")
    return OnnxModel(
        stage_name="quantize",
        precision="int8",
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        opset=source.opset,
        ir_version=source.ir_version,
        classes=source.classes,
        heads=source.heads,
        preprocessing=source.preprocessing,
        parity=_parity(source, path, dataset),
        steps=graph.steps,
        float_nodes=(*(f"{name}: {NOT_FUSED}" for name in unexpected), *expected),
        operators=proof.operators,
        macs=source.macs,
        warnings=warnings,
    ).at(path.parent)


def _float_layers(graph: QuantGraph, proof: Proof) -> tuple[list[str], list[str]]:
    """Return the layers that the runtime computes in float although they are quantized, and the others with the reason."""
    known = [node.name for node in graph.model.graph.node if node.op_type in LAYERS]
    unexpected: dict[str, None] = {}
    for name in proof.float_layers:
        # The runtime puts something behind a name when it changes the node's layout.
        layer = max((layer for layer in known if name.startswith(layer)), key=len, default=name)
        if layer not in graph.left_float:
            unexpected[layer] = None
    return list(unexpected), [f"{name}: {why}" for name, why in graph.left_float.items()]


def _parity(fp32: OnnxModel, int8: Path, dataset: Dataset) -> NumericParity:
    import numpy as np

    rows = spread_rows(dataset.counts["test"], PARITY_IMAGES)
    images = np.array(dataset.images("test")[rows])
    names = dataset.names("test")
    logits = []
    for path in (fp32.path, int8):
        session = open_session(path, PLAIN_SESSION)
        logits.append(np.concatenate([session.run(["logits"], {"image": image[None]})[0] for image in images]))
    return compare_logits(logits[0], logits[1], [names[row] for row in rows], fp32.heads)


def calibration_rows(dataset: Dataset, wanted: int, seed: int) -> tuple[list[int], int]:
    """Return rows of the train split to calibrate with, and how many were dropped for being test images, too.

    The classes (or strata) take turns, each in an order drawn from the seed, so that every one has the same number of images as
    far as its images go.

    Raises:
        DataError: none is left.
    """
    import numpy as np

    labels = np.asarray(dataset.labels("train"))
    generator = np.random.default_rng(seed)
    strata = range(int(labels.max()) + 1)
    queues = [list(generator.permutation(np.flatnonzero(labels == stratum))) for stratum in strata]
    order = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    test = {digest for _, digest in _digests(dataset, "test", range(dataset.counts["test"]))}
    rows: list[int] = []
    dropped = 0
    for row, digest in _digests(dataset, "train", order):
        if len(rows) == wanted:
            break
        if digest in test:
            dropped += 1
        else:
            rows.append(row)
    if not rows:
        raise DataError("no train image is left to calibrate with: all are in the test set, too", remedy="keep the sets apart")
    return rows, dropped


def _digests(dataset: Dataset, split: Split, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield each of the rows with the digest of its image."""
    for first in range(0, len(rows), IMAGES_AT_ONCE):
        some = rows[first : first + IMAGES_AT_ONCE]
        for row, image in zip(some, dataset.read(split, some), strict=True):
            yield int(row), hashlib.sha256(image.tobytes()).digest()


def _batches(dataset: Dataset, rows: list[int]) -> Batches:
    """Return what starts the stream of calibration images."""
    spec = dataset.preprocessing
    size = max(1, PIXELS_PER_BATCH // (spec.height * spec.width))

    def start() -> Iterator[npt.NDArray[np.uint8]]:
        for first in range(0, len(rows), size):
            yield dataset.read("train", rows[first : first + size])

    return start
