"""What starts from a file instead of a recipe: quantizing a model, checking a bundle again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Dataset, Head, Measurement, OnnxModel, Preprocessing, VerdictRow
from edgetune.device.bundle import heads_of
from edgetune.device.decisions import is_classifier
from edgetune.device.heads import REGRESSION, column_names
from edgetune.errors import DataError, Fault, GraphError
from edgetune.files import sha256_file
from edgetune.pipeline import Run
from edgetune.progress import Progress
from edgetune.recipe import DataRecipe, TaskRecipe

if TYPE_CHECKING:
    import onnx

__all__ = ["check_bundle", "quantize_file"]

EXPORTED = "give a file that `edgetune export` wrote"
SHOWN = 5
"""Names of classes in an error."""


def quantize_file(run: Run, path: Path) -> OnnxModel:
    """Quantize an fp32 ONNX file that edgetune exported, for a run's target, calibrated with a run's images.

    Args:
        run: its data table says which images; their size is taken from the model, and what is known of them from its tasks,
            or from the model's own if it has none.
        path: the file.

    Raises:
        GraphError: the file does not say what it expects of an image, or is not an fp32 model of edgetune's contract.
        DataError: the images' classes are not the model's.
    """
    source = _read_model(path)
    data = _recipe_for(source.preprocessing, run.recipe.data)
    adapted = Run(
        recipe=run.recipe.model_copy(update={"data": data, "tasks": run.recipe.tasks or _tasks_of(source.heads)}),
        profile=run.profile,
        folder=run.folder,
        progress=run.progress,
        stop=run.stop,
    )
    _require_same_heads(adapted.dataset, source.heads, "model")
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
        said = read_metadata(model)
    except (ValueError, TypeError) as fault:
        raise GraphError(f"{path.name} has metadata of edgetune that cannot be read: {fault}", remedy=EXPORTED) from fault
    preprocessing, classes = said.preprocessing, said.classes
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
        heads=said.heads,
        preprocessing=preprocessing,
    ).at(path.parent)


def _contract_faults(model: onnx.ModelProto, size: Preprocessing, classes: int) -> list[Fault]:
    """Return how a model is not one file that takes `image`, gives `logits` and computes in float."""
    from onnx import TensorProto

    graph = model.graph
    faults = [
        Fault(where=kind, problem="is another one", got=", ".join(map(_tensor, got)) or "none", expected=expected)
        for kind, got, expected in (
            ("input", graph.input, f"image: UINT8 [N, {size.height}, {size.width}, {size.channels}]"),
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


def _require_same_heads(dataset: Dataset, heads: Sequence[Head], owner: str) -> None:
    """Refuse images of other classes, labels or values than a model was trained on.

    Raises:
        DataError: they are others, or in another order.
    """
    wanted = column_names(heads)
    if dataset.classes != wanted:
        # Names that only one of them has tell more than the first ones of many.
        got = [name for name in dataset.classes if name not in wanted] or dataset.classes
        missing = [name for name in wanted if name not in dataset.classes] or wanted
        raise DataError(
            f"the images' classes are not the {owner}'s: got {_named(got)}, expected {_named(missing)}",
            remedy="give images of the classes that the model was trained on",
        )
    got, expected = ([f"{head.name} ({head.kind})" for head in some] for some in (dataset.heads, heads))
    # The only head of a classifier may have any name: a folder of classes has none for it.
    if got != expected and not (dataset.is_classifier and is_classifier(heads)):
        raise DataError(
            f"the images' tasks are not the {owner}'s: got {', '.join(got)}, expected {', '.join(expected)}",
            remedy="name the tasks in the recipe as the model's",
        )


def _tasks_of(heads: Sequence[Head]) -> dict[str, TaskRecipe]:
    """Return the tasks that heads come from, as far as they tell: values stand in columns of their own, else it is the task's.

    None for a classifier: a folder or a manifest with one class per image needs no word on it.
    """
    if is_classifier(heads):
        return {}
    return {
        head.name: TaskRecipe.model_validate({"kind": head.kind, "columns": head.columns if head.kind == REGRESSION else ()})
        for head in heads
    }


def _promised_tasks(manifest: Mapping[str, Any]) -> dict[str, TaskRecipe]:
    """Return the tasks that a bundle was built for, with the columns where a manifest of images says what is right."""
    heads = heads_of(manifest)
    if "tasks" not in manifest:
        return _tasks_of(heads)
    # In the order of the heads: that of a JSON file's keys says nothing.
    found = {head.name: manifest["tasks"][head.name] for head in heads}
    return {name: TaskRecipe.model_validate({**task, "columns": tuple(task["columns"])}) for name, task in found.items()}


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
        "channels": preprocessing.channels,
    }
    return recipe.model_copy(update=wanted)


def check_bundle(
    bundle: Path, source: str | None, *, quick: bool, progress: Progress
) -> tuple[Measurement, tuple[VerdictRow, ...]]:
    """Verify a bundle's digests, then measure it here and judge it by its own manifest.

    Args:
        bundle: the bundle's folder.
        source: labelled images to claim the accuracy on, a folder of classes or a manifest; None leaves that out.
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
        return measurement, judge_again(measurement, manifest, heads_of(manifest), dataset)


def _test_images(manifest: dict[str, Any], source: str, folder: Path, progress: Progress) -> Dataset:
    from edgetune import data

    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    recipe = _recipe_for(preprocessing, DataRecipe(source=source))
    folder.mkdir()
    tasks = _promised_tasks(manifest)
    found = data.fingerprint(recipe, None, tasks)
    dataset = data.prepare(recipe, seed=0, folder=folder, expected_fingerprint=found, progress=progress, tasks=tasks)
    _require_same_heads(dataset, heads_of(manifest), "bundle")
    return dataset
