"""A user's ONNX file: what it takes, what it gives, and every reason why it cannot be used, at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune.artefacts import Head, Preprocessing
from edgetune.device.heads import default_heads
from edgetune.errors import Fault, GraphError, UsageError
from edgetune.files import digest_of, sha256_file
from edgetune.onnxfile import Metadata, read_metadata
from edgetune.outside.given import Given, read_labels
from edgetune.outside.loading import load_model

if TYPE_CHECKING:
    import onnx

    from edgetune.profile import ModelCaps
    from edgetune.recipe import DataRecipe

__all__ = ["ImageInput", "ModelFile", "read_file", "tensor_in_words"]

EXPORTED = "give a file that `edgetune export` wrote"
IMAGE = "float32 or uint8 [N, K, H, W] or [N, H, W, K] with K = 1 or 3"
# What the entry is written in came to mean what it does today in this operator set.
OLDEST_OPSET = 7
CHANNELS = (1, 3)


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The input of a file.

    Attributes:
        name: of the tensor.
        kind: of its elements.
        layout: the order of its axes.
        batch: how many images it takes at once; None for any number.
        height: in pixels.
        width: in pixels.
        channels: 3 is RGB, 1 grey.
    """

    name: str
    kind: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]
    batch: int | None
    height: int
    width: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A file that can be used.

    Attributes:
        path: where it is.
        sha256: of the file.
        digest: of the file and the weights that stand in files beside it.
        model: with all weights inside.
        apart: whether weights stood in files beside it.
        ours: whether it is an fp32 file of edgetune's contract.
        image: what it takes.
        output: the name of the tensor with the scores.
        columns: how many scores there are.
        heads: what they mean; empty where neither the file nor its user says it.
        preprocessing: from a decoded image to the input, as far as it is known.
        provenance: what a file of ours says of its own making.
    """

    path: Path
    sha256: str
    digest: str
    model: onnx.ModelProto
    apart: bool
    ours: bool
    image: ImageInput
    output: str
    columns: int
    heads: tuple[Head, ...]
    preprocessing: Preprocessing
    provenance: dict[str, str] = field(default_factory=dict)


def read_file(given: Given, data: DataRecipe, caps: ModelCaps) -> ModelFile:
    """Return what a file is, and what its user and its metadata say of it.

    Args:
        given: names the file.
        data: says how images are prepared, where the file does not.
        caps: the newest file format that the target reads.

    Raises:
        UsageError: something was given that the file says itself, or the labels cannot be used.
        GraphError: it is not an ONNX file, or not an fp32 classifier of images; with every reason.
    """
    model, weights = load_model(given.path)
    try:
        said = read_metadata(model)
    except (ValueError, TypeError) as fault:
        raise GraphError(f"{given.path.name} has metadata of edgetune that cannot be read: {fault}", remedy=EXPORTED) from fault
    read = _read_ours if said.preprocessing is not None and said.classes else _read_foreign
    image, output, columns, heads, preprocessing = read(given, model, said, data, caps)
    sha256 = sha256_file(given.path)
    return ModelFile(
        path=given.path,
        sha256=sha256,
        digest=digest_of({"model": sha256, **weights}) if weights else sha256,
        model=model,
        apart=bool(weights),
        ours=read is _read_ours,
        image=image,
        output=output,
        columns=columns,
        heads=heads,
        preprocessing=preprocessing,
        provenance=said.provenance if read is _read_ours else {},
    )


Facts = tuple[ImageInput, str, int, tuple[Head, ...], Preprocessing]


def _read_ours(given: Given, model: onnx.ModelProto, said: Metadata, _data: DataRecipe, _caps: ModelCaps) -> Facts:
    """Return the facts of a file that says everything itself, and so must be what it says."""
    size = said.preprocessing
    assert size is not None
    asked = {"--pixels": given.pixels, "--mean": given.mean, "--labels": given.labels, "--output-name": given.output_name}
    if told := [option for option, value in asked.items() if value]:
        raise UsageError(
            f"{given.path.name} says in its metadata what it expects and what its outputs mean",
            faults=[Fault(where=option, problem="has no meaning for it") for option in told],
            remedy="leave that out",
        )
    pairs = (
        ("input", _inputs(model), f"image: UINT8 [N, {size.height}, {size.width}, {size.channels}]"),
        ("output", list(model.graph.output), f"logits: FLOAT [N, {len(said.classes)}]"),
    )
    faults = [
        Fault(where=kind, problem="is another one", got=", ".join(map(tensor_in_words, got)) or "none", expected=expected)
        for kind, got, expected in pairs
        if [tensor_in_words(value) for value in got] != [expected]
    ]
    faults += _quantized(model)
    if faults:
        raise GraphError(f"{given.path.name} is not an fp32 model as edgetune exports it", faults=faults, remedy=EXPORTED)
    image = ImageInput(
        name="image",
        kind="uint8",
        layout="NHWC",
        batch=None,
        height=size.height,
        width=size.width,
        channels=size.channels,
    )
    return image, "logits", len(said.classes), said.heads, size


def _read_foreign(given: Given, model: onnx.ModelProto, _said: Metadata, data: DataRecipe, caps: ModelCaps) -> Facts:
    """Return the facts of a file of another exporter."""
    faults = [*_quantized(model), *_unreadable(model, caps)]
    image, output, columns = _image(model, data, faults), *_scores(given, model, faults)
    if faults or image is None:
        raise GraphError(
            f"{given.path.name} cannot be used as a classifier of images",
            faults=faults,
            remedy="export it again, or give another",
        )
    names = read_labels(Path(given.labels)) if given.labels else ()
    if names and len(names) != columns:
        raise UsageError(
            f"--labels: {Path(given.labels).name} names {len(names)} classes; {given.path.name} gives {columns} scores",
            remedy="give one name for each output, in their order",
        )
    if image.kind == "uint8" and (given.pixels not in ("", "bytes") or given.mean):
        raise UsageError(
            f"{given.path.name} takes bytes: its own graph scales them", remedy="leave --pixels, --mean and --std out"
        )
    preprocessing = Preprocessing(
        height=image.height,
        width=image.width,
        resize=data.resize,
        interpolation=data.interpolation,
        crop_fraction=data.crop_fraction,
        channels=image.channels,
    )
    return image, output, columns, default_heads(names) if names else (), preprocessing


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs; old files list their weights among them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _quantized(model: onnx.ModelProto) -> list[Fault]:
    marks = ("QLinear", "QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger")
    found = any(node.op_type.startswith(marks) for node in model.graph.node)
    return [Fault(where="graph", problem="is quantized already", expected="fp32")] if found else []


def _unreadable(model: onnx.ModelProto, caps: ModelCaps) -> Iterator[Fault]:
    """Yield why the entry cannot be written in the file's format, or the target could not read it."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not OLDEST_OPSET <= opset <= caps.opset:
        yield Fault(where="opset", problem="cannot be used", got=str(opset), expected=f"{OLDEST_OPSET} to {caps.opset}")
    for node in model.graph.node:
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            yield Fault(where=node.name or node.op_type, problem=f"{node.op_type} is control flow", expected="a flat graph")


def _image(model: onnx.ModelProto, data: DataRecipe, faults: list[Fault]) -> ImageInput | None:
    """Return the only input, or add the reasons why it is none for images."""
    from onnx import TensorProto

    values = _inputs(model)
    got = ", ".join(map(tensor_in_words, values)) or "none"
    kinds: dict[int, Literal["float32", "uint8"]] = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}
    kind = kinds.get(values[0].type.tensor_type.elem_type) if len(values) == 1 else None
    sides = _sides(values[0]) if len(values) == 1 else []
    layouts: list[Literal["NCHW", "NHWC"]] = []
    if len(sides) == 4:
        layouts += ["NCHW"] if sides[1] in CHANNELS else []
        layouts += ["NHWC"] if sides[3] in CHANNELS else []
    if kind is None or len(layouts) != 1:
        faults.append(Fault(where="input", problem="is not one of images", got=got, expected=IMAGE))
        return None
    channels, *size = (sides[1], sides[2], sides[3]) if layouts[0] == "NCHW" else (sides[3], sides[1], sides[2])
    assert channels is not None
    wanted = None if data.image_size == "auto" else data.image_size
    if None in size and wanted is None:
        hint = "give it with --set data.image_size=224 or whatever it was trained with"
        faults.append(Fault(where="input", problem="does not say the size of the images", got=got, hint=hint))
        return None
    height, width = (side or wanted or 0 for side in size)
    return ImageInput(
        name=values[0].name, kind=kind, layout=layouts[0], batch=sides[0], height=height, width=width, channels=channels
    )


def _scores(given: Given, model: onnx.ModelProto, faults: list[Fault]) -> tuple[str, int]:
    """Return the name of the output and the number of its columns, or add the reasons why there is none."""
    import onnx
    from onnx import TensorProto

    outputs = {value.name: value for value in model.graph.output}
    shown = ", ".join(map(tensor_in_words, outputs.values()))
    name = given.output_name or next(iter(outputs), "")
    if name not in outputs:
        faults.append(Fault(where="--output-name", problem="is not an output", got=name, expected=f"one of {shown}"))
        return "", 0
    if len(outputs) > 1 and not given.output_name:
        hint = f"say which one has the scores, as in --output-name {name}"
        faults.append(Fault(where="output", problem="there are several", got=shown, hint=hint))
        return "", 0
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as fault:
        faults.append(Fault(where="graph", problem=f"is not valid: {' '.join(str(fault).split())[:300]}"))
        return "", 0
    value = next(value for value in inferred.graph.output if value.name == name)
    sides = _sides(value)
    if value.type.tensor_type.elem_type != TensorProto.FLOAT or len(sides) != 2 or not sides[1] or sides[1] < 2:
        expected = "float32 [N, C], a score for each of two classes or more"
        faults.append(Fault(where="output", problem="is not one of classes", got=tensor_in_words(value), expected=expected))
        return "", 0
    return name, sides[1]


def _sides(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the shape; None for a side that may be of any size."""
    return [side.dim_value if side.dim_value > 0 else None for side in value.type.tensor_type.shape.dim]


def tensor_in_words(value: onnx.ValueInfoProto) -> str:
    """Return an input or output in words; the size of the batch, fixed or not, is called N."""
    from onnx import TensorProto

    facts = value.type.tensor_type
    shape: Sequence[str] = ["N", *(str(side.dim_value or side.dim_param or "?") for side in facts.shape.dim[1:])]
    return f"{value.name}: {TensorProto.DataType.Name(facts.elem_type)} [{', '.join(shape)}]"
