"""What a user named: a bundle, a run folder that holds one, or a bare ONNX file that keeps the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgetune.artefacts import Head, Preprocessing
from edgetune.artefacts.comparison import Compared
from edgetune.device.bundle import heads_of
from edgetune.device.heads import columns_of
from edgetune.errors import Fault, UsageError
from edgetune.files import sha256_file

__all__ = ["Side", "column_order", "completed", "read_side"]

REMEDY = (
    "compare bundles, or files that edgetune wrote; `edgetune quantize FILE.onnx --data DIR` makes a bundle of any classifier"
)
SHOWN_PARTS = 3
"""Parts of a path that a report shows: who reads it elsewhere has no use for more."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models.

    Attributes:
        name: `baseline` or `candidate`.
        shown: what a report says of it.
        path: the ONNX file.
        heads: what the columns of its logits mean; empty for a bare file that does not say.
        preprocessing: from a decoded image to its input; None likewise.
        session: how ONNX Runtime is opened.
        manifest: of the bundle; empty for a bare file.
        run: the run folder that it lies in; None for none.
    """

    name: str
    shown: Compared
    path: Path
    heads: tuple[Head, ...]
    preprocessing: Preprocessing | None
    session: dict[str, Any]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    run: Path | None = None


def read_side(path: Path, name: str) -> Side:
    """Return the model that a user named, its digests checked.

    Raises:
        UsageError: it is neither a bundle nor a run folder nor an ONNX file that keeps the contract.
        ArtefactError: a file of the bundle is not what was built.
    """
    if path.is_dir():
        return _bundle(path, name)
    if path.suffix == ".onnx":
        return _bare(path, name)
    raise UsageError(f"{path} is neither a bundle, a run folder nor an .onnx file", remedy=REMEDY)


def _shown(path: Path) -> str:
    return "/".join(path.absolute().parts[-SHOWN_PARTS:]) if path.is_absolute() else path.as_posix()


def _bundle(folder: Path, name: str) -> Side:
    from edgetune.release.load import load_bundle, locate_bundle

    bundle = locate_bundle(folder)
    if not (bundle / "manifest.json").is_file():
        raise UsageError(f"{folder} is neither a bundle nor a run folder with one: it has no manifest.json", remedy=REMEDY)
    manifest = load_bundle(bundle)
    model = manifest["model"]
    run = folder if bundle != folder else folder.absolute().parent
    shown = Compared(
        given=_shown(folder),
        kind="bundle",
        product=str(manifest.get("product", bundle.name)),
        precision=model["precision"],
        model_sha256=model["sha256"],
        bundle_sha256=sha256_file(bundle / "manifest.json"),
        size_bytes=model["size_bytes"],
    )
    return Side(
        name=name,
        shown=shown,
        path=(bundle / model["file"]).resolve(),
        heads=heads_of(manifest),
        preprocessing=Preprocessing.from_dict(manifest["preprocessing"]),
        session=dict(manifest["session"]),
        manifest=manifest,
        run=run if (run / "recipe.toml").is_file() else None,
    )


def _bare(path: Path, name: str) -> Side:
    """Return a bare file as a side.

    Raises:
        GraphError: it is not an ONNX file.
        UsageError: it does not keep the contract, or its metadata is not what edgetune writes.
    """
    from edgetune.onnxfile import read_metadata
    from edgetune.outside.loading import load_model

    model, apart = load_model(path)
    if apart:
        raise UsageError(f"{path} has its weights in other files: {', '.join(apart)}", remedy="save it as one file")
    if faults := _contract_faults(model):
        raise UsageError(f"{path} does not keep edgetune's contract", faults=faults, remedy=REMEDY)
    try:
        said = read_metadata(model)
    except (ValueError, TypeError) as fault:
        raise UsageError(f"{path}: its metadata cannot be used: {fault}", remedy=REMEDY) from fault
    shown = Compared(
        given=_shown(path), kind="model", product=path.stem, model_sha256=sha256_file(path), size_bytes=path.stat().st_size
    )
    return Side(
        name=name,
        shown=shown,
        path=path.resolve(),
        heads=said.heads,
        preprocessing=said.preprocessing,
        session={"providers": ["CPUExecutionProvider"]},
    )


def _contract_faults(model: Any) -> list[Fault]:
    """Return how a graph differs from `image` uint8 `[N, H, W, K]` in, `logits` float32 `[N, C]` out."""
    from onnx import TensorProto

    constants = {tensor.name for tensor in model.graph.initializer}
    faults = []
    for place, name, kind, rank, values in (
        ("input", "image", TensorProto.UINT8, 4, [value for value in model.graph.input if value.name not in constants]),
        ("output", "logits", TensorProto.FLOAT, 2, list(model.graph.output)),
    ):
        got = ", ".join(map(_described, values))
        tensor = values[0].type.tensor_type if len(values) == 1 else None
        if tensor is None or values[0].name != name or tensor.elem_type != kind or len(tensor.shape.dim) != rank:
            expected = "image: uint8 [N, H, W, K]" if place == "input" else "logits: float [N, C]"
            faults.append(Fault(where=place, problem="is another one", got=got, expected=expected))
    return faults


def _described(value: Any) -> str:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    sides = ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in tensor.shape.dim)
    return f"{value.name}: {TensorProto.DataType.Name(tensor.elem_type).lower()} [{sides}]"


def completed(baseline: Side, candidate: Side) -> tuple[Side, Side]:
    """Return both sides with what a bare file does not say taken over from the other one.

    Raises:
        UsageError: neither says what its outputs mean, or they do not do the same task.
    """
    both = []
    for side, other in ((baseline, candidate), (candidate, baseline)):
        heads, spec = side.heads or other.heads, side.preprocessing or other.preprocessing
        if not heads or spec is None:
            raise UsageError(
                f"neither {baseline.shown.given} nor {candidate.shown.given} says what its outputs mean and how images become "
                "its input",
                remedy=REMEDY,
            )
        # A bare file that says nothing runs as the other side does; a bundle runs as it will on the board.
        session = side.session if side.manifest or not other.manifest else dict(other.session)
        both.append(replace(side, heads=heads, preprocessing=spec, session=session))
    first, second = both
    _require_same_tasks(first, second)
    return first, second


def _require_same_tasks(first: Side, second: Side) -> None:
    faults = []
    names = [[(head.name, head.kind) for head in side.heads] for side in (first, second)]
    if names[0] != names[1] and not (len(first.heads) == len(second.heads) == 1 and names[0][0][1] == names[1][0][1]):
        faults.append(Fault(where="tasks", problem="differ", got=str(names[1]), expected=str(names[0])))
    else:
        for one, other in zip(first.heads, second.heads, strict=True):
            if set(one.columns) != set(other.columns):
                gone, new = (sorted(set(a.columns) - set(b.columns)) for a, b in ((one, other), (other, one)))
                words = "; ".join(part for part in (_names("without", gone), _names("with the new", new)) if part)
                faults.append(Fault(where=f"classes of {one.name}", problem=f"the candidate is {words}"))
    if faults:
        raise UsageError(
            f"{second.shown.given} does not do what {first.shown.given} does, so that neither is the better one",
            faults=faults,
            remedy="compare models of the same classes",
        )


def _names(word: str, names: list[str]) -> str:
    return f"{word} {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else ""


def column_order(first: tuple[Head, ...], second: tuple[Head, ...]) -> list[int]:
    """Return where each column of the first's logits stands among those of the second."""
    order = []
    for one, other, columns in zip(first, second, columns_of(second), strict=True):
        order += [columns.start + other.columns.index(name) for name in one.columns]
    return order
