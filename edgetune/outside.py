"""What starts from a file instead of a recipe: quantizing a model, checking a bundle again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Dataset, Measurement, OnnxModel, Preprocessing, VerdictRow
from edgetune.errors import DataError, Fault, GraphError
from edgetune.files import sha256_file
from edgetune.pipeline import Run
from edgetune.progress import Progress
from edgetune.recipe import DataRecipe

if TYPE_CHECKING:
    import onnx

__all__ = ["check_bundle", "quantize_file"]

EXPORTED = "give a file that `edgetune export` wrote"
SHOWN = 5
"""Names of classes in an error."""


def quantize_file(run: Run, path: Path) -> OnnxModel:
    """Quantize an fp32 ONNX file that edgetune exported, for a run's target, calibrated with a run's images.

    Args:
        run: its data table says which images; their size is taken from the model.
        path: the file.

    Raises:
        GraphError: the file does not say what it expects of an image, or is not an fp32 model of edgetune's contract.
        DataError: the images' classes are not the model's.
    """
    source = _read_model(path)
    recipe = _recipe_for(source.preprocessing, run.recipe.data)
    adapted = Run(
        recipe=run.recipe.model_copy(update={"data": recipe}),
        profile=run.profile,
        folder=run.folder,
        progress=run.progress,
        stop=run.stop,
    )
    dataset = adapted.dataset
    if dataset.classes != source.classes:
        raise DataError(
            f"the images' classes are not the model's: got {_named(dataset.classes)}, expected {_named(source.classes)}",
            remedy="give the images that the model was trained on",
        )
    return adapted.quantized(source)


def _read_model(path: Path) -> OnnxModel:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from edgetune.onnxfile import read_metadata

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as fault:
        raise GraphError(f"{path} is not an ONNX file: {fault}") from fault
    try:
        classes, preprocessing, _ = read_metadata(model)
    except (ValueError, TypeError) as fault:
        raise GraphError(f"{path.name} has metadata of edgetune that cannot be read: {fault}", remedy=EXPORTED) from fault
    if preprocessing is None or not classes:
        raise GraphError(f"{path.name} does not say its labels and preprocessing in its metadata", remedy=EXPORTED)
    faults = _contract_faults(model, preprocessing, len(classes))
    if faults:
        raise GraphError(f"{path.name} is not an fp32 model as edgetune exports it", faults=faults, remedy=EXPORTED)
    return OnnxModel(
        stage_name="export",
        file=path.name,
        precision="fp32",
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        opset=next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        classes=classes,
        preprocessing=preprocessing,
    ).at(path.parent)


def _contract_faults(model: onnx.ModelProto, size: Preprocessing, classes: int) -> list[Fault]:
    """Return how a model is not one file that takes `image`, gives `logits` and computes in float."""
    from onnx import TensorProto

    graph = model.graph
    faults = [
        Fault(where=kind, problem="is another one", got=", ".join(map(_tensor, got)) or "none", expected=expected)
        for kind, got, expected in (
            ("input", graph.input, f"image: UINT8 [N, {size.height}, {size.width}, 3]"),
            ("output", graph.output, f"logits: FLOAT [N, {classes}]"),
        )
        if [_tensor(value) for value in got] != [expected]
    ]
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
        faults.append(Fault(where="weights", problem="are in a file of their own, which no digest here would cover"))
    if any(node.op_type.startswith(("QLinear", "QuantizeLinear", "DequantizeLinear")) for node in graph.node):
        faults.append(Fault(where="graph", problem="is quantized already"))
    return faults


def _tensor(value: onnx.ValueInfoProto) -> str:
    """Return an input or output in words; the size of the batch, fixed or not, is called N."""
    from onnx import TensorProto

    facts = value.type.tensor_type
    shape = ["N", *(str(side.dim_value or side.dim_param or "?") for side in facts.shape.dim[1:])]
    return f"{value.name}: {TensorProto.DataType.Name(facts.elem_type)} [{', '.join(shape)}]"


def _named(classes: Sequence[str]) -> str:
    """Return a few names of classes, and how many there are if that is not all."""
    more = f", … ({len(classes)} classes)" if len(classes) > SHOWN else ""
    return ", ".join(classes[:SHOWN]) + more


def _recipe_for(preprocessing: Preprocessing, recipe: DataRecipe) -> DataRecipe:
    """Return the data table that prepares images as a model expects them."""
    if preprocessing.height != preprocessing.width:
        raise GraphError(
            f"the model takes {preprocessing.height} x {preprocessing.width} pixels; only squares are prepared here"
        )
    wanted = {
        "image_size": preprocessing.height,
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
        "crop_fraction": preprocessing.crop_fraction,
    }
    return recipe.model_copy(update=wanted)


def check_bundle(
    bundle: Path, source: str | None, *, quick: bool, progress: Progress
) -> tuple[Measurement, tuple[VerdictRow, ...]]:
    """Verify a bundle's digests, then measure it here and judge it by its own manifest.

    Args:
        bundle: the bundle's folder.
        source: a folder of labelled images to claim the accuracy on; None leaves that out.
        quick: few queries.
        progress: told what goes on.

    Raises:
        ArtefactError: a file is not what was built, with every such file.
        DataError: the images cannot be used, or their classes are not the model's.
        TargetError: the provider that the bundle wants is not available here.
    """
    from edgetune.release.load import load_bundle
    from edgetune.verify.recheck import judge_again, measure_again

    manifest = load_bundle(bundle)
    progress.line("every file is what was built")
    with tempfile.TemporaryDirectory(prefix="edgetune-check-") as scratch:
        dataset = None if source is None else _test_images(manifest, source, Path(scratch) / "data", progress)
        folder = Path(scratch) / "measurement"
        folder.mkdir()
        measurement = measure_again(bundle, manifest, dataset, quick=quick, folder=folder, progress=progress)
        return measurement, judge_again(measurement, manifest, dataset)


def _test_images(manifest: dict[str, Any], source: str, folder: Path, progress: Progress) -> Dataset:
    from edgetune import data

    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    recipe = _recipe_for(preprocessing, DataRecipe(source=source))
    folder.mkdir()
    found = data.fingerprint(recipe, None)
    dataset = data.prepare(recipe, seed=0, folder=folder, expected_fingerprint=found, progress=progress)
    if list(dataset.classes) != manifest["classes"]:
        raise DataError(
            f"the images' classes are not the bundle's: got {_named(dataset.classes)}, expected {_named(manifest['classes'])}",
            remedy="give images of the classes that the model was trained on",
        )
    return dataset
