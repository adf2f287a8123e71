"""The stage that takes export's place: a user's ONNX file in, an fp32 file that keeps the contract out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Dataset, Head, NumericParity, OnnxModel
from edgetune.device.decisions import is_classifier
from edgetune.device.exitcodes import RunnerError
from edgetune.device.session import one_line, open_session
from edgetune.errors import Fault, GraphError
from edgetune.files import sha256_file, write_atomic
from edgetune.macs import multiply_accumulates
from edgetune.numeric import PLAIN_SESSION, compare_logits, spread_rows
from edgetune.onnxfile import write_metadata
from edgetune.outside.contract import only_logits, with_contract
from edgetune.outside.reading import ModelFile
from edgetune.outside.trial import Original, chance_warning, refuse_to_guess, some_images

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    import onnx

    from edgetune.outside.given import Pixels
    from edgetune.profile import ModelCaps
    from edgetune.progress import Progress
    from edgetune.recipe import ExportRecipe

__all__ = ["bring_in"]

AT_ONCE = 3
DYNAMIC = "export it again for any number of images, as torch.onnx.export does with dynamic_axes or dynamic_shapes"


def bring_in(
    file: ModelFile,
    pixels: Pixels | None,
    dataset: Dataset,
    recipe: ExportRecipe,
    caps: ModelCaps,
    *,
    provenance: Mapping[str, str],
    folder: Path,
    progress: Progress,
) -> OnnxModel:
    """Write a user's file as one that keeps the contract, and compare the two on real images.

    A file that keeps it already is written byte for byte, unless its weights stand in other files.

    Args:
        file: what was read.
        pixels: what it expects of a byte; None if that is not known, or it takes bytes.
        dataset: its images are compared on, and show whether the file knows their classes.
        recipe: how many images to compare on, and what counts as the same.
        caps: the newest file format that the target reads.
        provenance: where the model comes from, written into the metadata of a file that has none of ours.
        folder: where `model.onnx` is written.
        progress: told what is done.

    Raises:
        UsageError: nobody says what pixels the file expects; with what each preset reaches.
        GraphError: the graph cannot be run, or not for any number of images.
    """
    path = folder / "model.onnx"
    if file.ours:
        content = file.model.SerializeToString(deterministic=True) if file.apart else file.path.read_bytes()
        write_atomic(path, content)
        return _described(path, file.model, file, dataset, None, file.heads, ())
    logits, removed = only_logits(file)
    original = Original(logits, file)
    if pixels is None and file.image.kind == "float32":
        raise refuse_to_guess(file, original, dataset)
    steps: list[dict[str, Any]] = []
    if removed:
        progress.line(f"the final {removed} is left out: logits are compared, calibrated and shipped")
        steps.append({"step": f"final {removed} left out", "nodes": 1})
    model, more = with_contract(logits, file, pixels, caps)
    heads = file.heads or dataset.heads
    write_metadata(model, heads, file.preprocessing, provenance)
    write_atomic(path, model.SerializeToString(deterministic=True))
    parity = _parity(path, original, pixels, file, dataset, recipe, heads)
    return _described(path, model, file, dataset, parity, heads, (*steps, *more))


def _parity(
    path: Path,
    original: Original,
    pixels: Pixels | None,
    file: ModelFile,
    dataset: Dataset,
    recipe: ExportRecipe,
    heads: tuple[Head, ...],
) -> NumericParity:
    """Return the user's graph against ours on test images: ours in batches of three and of one, since both must work.

    Raises:
        GraphError: the graph cannot be run on several images, or they disturb each other.
    """
    import numpy as np

    rows = spread_rows(dataset.counts["test"], recipe.parity_images)
    images = dataset.read("test", rows)
    expected = original.logits(images, pixels)
    try:
        session = open_session(path, PLAIN_SESSION)
        ones = _run(session, images, 1)
    except RunnerError as fault:
        raise GraphError(f"{file.path.name} cannot be run with the contract's entry: {fault.message}") from fault
    try:
        threes = _run(session, images, AT_ONCE)
    except Exception as fault:
        # ONNX Runtime's own exceptions have no common root but Exception.
        raise GraphError(
            f"{file.path.name} is made for {_batch(file)}, and cannot be run on {AT_ONCE} at once: {one_line(fault)}",
            remedy=DYNAMIC,
        ) from fault
    largest = float(np.abs(ones).max()) or 1.0
    apart = float(np.abs(threes - ones).max()) / largest
    if not apart <= recipe.max_abs:
        raise GraphError(
            f"{file.path.name} is made for {_batch(file)}: among {AT_ONCE} at once an image gets other logits than alone",
            faults=[
                Fault(where="logits", problem="differ", got=f"{apart:.1e} of the largest", expected=f"≤ {recipe.max_abs:.1e}")
            ],
            remedy=DYNAMIC,
        )
    names = dataset.names("test")
    half = len(images) // 2
    mixed = np.concatenate([threes[:half], ones[half:]])
    return compare_logits(expected, mixed, [names[row] for row in rows], heads)


def _batch(file: ModelFile) -> str:
    return f"batches of {file.image.batch}" if file.image.batch else "any number of images"


def _run(session: Any, images: npt.NDArray[np.uint8], at_once: int) -> npt.NDArray[np.float32]:
    import numpy as np

    parts = [images[first : first + at_once] for first in range(0, len(images), at_once)]
    return np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])


def _described(
    path: Path,
    model: onnx.ModelProto,
    file: ModelFile,
    dataset: Dataset,
    parity: NumericParity | None,
    heads: tuple[Head, ...],
    steps: tuple[dict[str, Any], ...],
) -> OnnxModel:
    """Return the value of the stage."""
    warnings: tuple[str, ...] = ()
    if is_classifier(heads):
        images, labels = some_images(dataset)
        warnings = chance_warning(_run(open_session(path, PLAIN_SESSION), images, 1), labels, file.path.name)
        absent, known = dataset.class_counts["test"].count(0), len(dataset.classes)
        if absent:
            there = f"the images are of {known - absent} of the model's {known} classes"
            warnings += (f"{there}: top-1 is over all of them, and means over classes count the others as 0",)
    return OnnxModel(
        stage_name="import",
        precision="fp32",
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        ir_version=model.ir_version,
        classes=dataset.classes,
        heads=heads,
        preprocessing=file.preprocessing,
        parity=parity,
        steps=steps,
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        macs=multiply_accumulates(model),
        warnings=warnings,
    ).at(path.parent)
