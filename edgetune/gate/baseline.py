"""The baseline file: what an accepted bundle was, small enough to stand in a repository.

It holds no times that a gate would compare: those are of one machine on one day. The decisions about every image are in it, so
that a later candidate can be compared image by image wherever the same images are at hand.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgetune.artefacts import Figures, Head
from edgetune.artefacts.comparison import Compared
from edgetune.device.decisions import decisions
from edgetune.device.heads import REGRESSION, SINGLE_LABEL, columns_of, heads_from_json, heads_to_json
from edgetune.errors import ArtefactError, Fault, UsageError
from edgetune.files import write_json
from edgetune.gate.images import Labelled, labelled, source_of
from edgetune.gate.measuring import Device
from edgetune.gate.sides import Side, read_side
from edgetune.progress import Progress

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgetune.verify.targets.interface import Target

    Decided = npt.NDArray[np.int64]

__all__ = ["Baseline", "read_baseline", "set_baseline"]

KIND = "edgetune-baseline"
FOR_A_READER = {"per_class", "per_label", "confusion"}
LARGEST_FILE = 2**26
KEPT_OF_ENVIRONMENT = ("name", "architecture", "cores", "os", "python", "onnxruntime", "providers")


class Decisions(BaseModel):
    """What a head decided about each image: `[N, D]`, the smallest unsigned integers that hold it, deflated, as base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["u1", "u2", "u4"]
    columns: int = Field(ge=1)
    data: str

    @classmethod
    def pack(cls, decided: Decided) -> Decisions:
        """Return decisions as text."""
        largest = int(decided.max(initial=0))
        kind: Literal["u1", "u2", "u4"] = "u1" if largest < 2**8 else "u2" if largest < 2**16 else "u4"
        packed = zlib.compress(decided.astype(f"<{kind}").tobytes(), 9)
        return cls(type=kind, columns=decided.shape[1], data=base64.b64encode(packed).decode())

    def unpack(self, images: int) -> Decided:
        """Return the decisions about so many images.

        Raises:
            ValueError: it is not text that `pack` wrote, or of another number of images.
        """
        size = images * self.columns * int(self.type[1])
        try:
            unpacker = zlib.decompressobj()
            raw = unpacker.decompress(base64.b64decode(self.data, validate=True), size + 1)
        except zlib.error as fault:
            raise ValueError(f"cannot be unpacked: {fault}") from fault
        if len(raw) != size:
            raise ValueError(f"are not those of {images} images")
        return np.frombuffer(raw, f"<{self.type}").reshape(images, self.columns).astype(np.int64)


class Images(BaseModel):
    """The images that the baseline was judged on; see `edgetune.gate.images.Labelled`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    images: int = Field(ge=1)
    images_sha256: str
    labels_sha256: str


NAMES = {
    "top1_percent": "top-1 %",
    "map_percent": "mAP %",
    "f1_macro": "F1, macro",
    "ece": "ECE",
    "rmse": "RMSE",
    "r2": "R²",
    "images": "images",
}


def _in_words(figures: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name} {figures[key]:.4g}" for key, name in NAMES.items() if figures.get(key) is not None) or "no figures"
    )


class Baseline(BaseModel):
    """The file.

    Attributes:
        schema_: the version of this layout.
        kind: what the file is.
        bundle: that was accepted.
        heads: its tasks, as in its manifest.
        accuracy: what it achieves, as in a manifest: `top1_percent` and its kin, or `heads`.
        images: on which; None where the figures are the manifest's own.
        decisions: about each of them, by head; a regression has none.
        where: the device that they were computed on.
        environment: of that device.
        latency: what the manifest says, for a reader.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    schema_: Literal[1] = Field(default=1, alias="schema", serialization_alias="schema")
    kind: Literal["edgetune-baseline"] = "edgetune-baseline"
    bundle: Compared
    heads: list[dict[str, Any]]
    accuracy: dict[str, Any]
    images: Images | None = None
    decisions: dict[str, Decisions] = Field(default_factory=dict)
    where: str
    environment: dict[str, Any] = Field(default_factory=dict)
    latency: dict[str, Any] = Field(default_factory=dict)

    @property
    def tasks(self) -> tuple[Head, ...]:
        """The heads."""
        return heads_from_json(self.heads)

    def lines(self) -> list[str]:
        """Return what was accepted, for a person."""
        bundle, images = self.bundle, self.images
        figures = self.accuracy.get("heads") or {self.tasks[0].name: self.accuracy}
        return [
            f"{bundle.product} {bundle.precision}, {bundle.size_bytes / 1e6:.2f} MB, from {bundle.given}",
            f"manifest sha256 {bundle.bundle_sha256}",
            *(f"{name}: {_in_words(one)}" for name, one in figures.items()),
            f"compared image by image on {images.images} images of {images.source}, pixels sha256 {images.images_sha256[:16]}…"
            if images
            else "without images: later comparisons are not image by image",
            f"measured on {self.where}",
        ]

    def decided(self, head: str) -> Decided | None:
        """Return what a head decided about each image, `[N, D]`; None where it is not in the file."""
        packed = self.decisions.get(head)
        return None if packed is None or self.images is None else packed.unpack(self.images.images)


def read_baseline(path: Path) -> Baseline:
    """Return a baseline file.

    Raises:
        UsageError: it cannot be read.
        ArtefactError: it is not what `edgetune baseline set` writes, with every fault.
    """
    remedy = "write it anew with `edgetune baseline set BUNDLE`"
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ArtefactError(f"{path} is too large for a baseline file", remedy=remedy)
        content = json.loads(path.read_bytes())
    except OSError as fault:
        raise UsageError(f"{path} cannot be read: {fault.strerror}", remedy=remedy) from fault
    except (ValueError, RecursionError) as fault:
        raise ArtefactError(f"{path} is not JSON: {fault}", remedy=remedy) from fault
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ArtefactError(f"{path} is not a baseline file: it does not say kind = {KIND!r}", remedy=remedy)
    if isinstance(content.get("schema"), int) and content["schema"] > 1:
        raise ArtefactError(
            f"{path} has schema {content['schema']}; this edgetune knows schema 1", remedy="install a newer edgetune"
        )
    try:
        found = Baseline.model_validate(content)
        _check_decisions(found)
    except ValidationError as errors:
        faults = [Fault(where=".".join(map(str, one["loc"])), problem=one["msg"]) for one in errors.errors()]
        raise ArtefactError(f"{path} cannot be used", faults=faults, remedy=remedy) from errors
    except ValueError as fault:
        raise ArtefactError(f"{path} cannot be used: {fault}", remedy=remedy) from fault
    return found


def _check_decisions(found: Baseline) -> None:
    """Raise unless the decisions can be those of the heads.

    Raises:
        ValueError: they cannot.
    """
    heads = {head.name: head for head in found.tasks}
    for name in found.decisions:
        decided = found.decided(name) if name in heads else None
        if decided is None:
            raise ValueError(f"decisions.{name}: there is no such head, or there are no images")
        several = heads[name].kind != SINGLE_LABEL
        columns, most = (len(heads[name].columns), 2) if several else (1, len(heads[name].columns))
        if decided.shape[1] != columns or decided.max(initial=0) >= most:
            raise ValueError(f"decisions.{name}: are not those of {len(heads[name].columns)} {heads[name].kind} columns")


def set_baseline(
    path: Path, file: Path, *, source: str | None, every: bool, target: Target, scratch: Path, progress: Progress
) -> Baseline:
    """Accept a bundle: write its digest, figures and decisions into a baseline file.

    Args:
        path: the bundle, or a run folder that holds one.
        file: to be written.
        source: labelled images; None for those of the run folder's recipe, or for the figures of the manifest alone.
        every: take all of the images, not the test split alone.
        target: the device that computes the decisions.
        scratch: a folder for what is needed meanwhile.
        progress: told what goes on.

    Raises:
        UsageError: it is not a bundle.
        ArtefactError: it is not what was built.
        DataError: the images cannot be used.
    """
    side = read_side(path, "baseline")
    if side.shown.kind != "bundle":
        raise UsageError(
            f"{path} is no bundle; only what can be shipped can be accepted", remedy="`edgetune build` makes bundles"
        )
    images = source_of(source, every, side)
    if images is None:
        found = _promised(side)
        progress.line(
            "without images only the manifest's figures are kept; with --data DIR candidates are compared image by image"
        )
    else:
        device = Device(target=target, folder=scratch / "device", progress=progress)
        device.meet()
        found = _measured(side, labelled(images, side, scratch / "images", progress), device)
    write_json(file, found.model_dump(mode="json", by_alias=True))
    return found


def _common(side: Side) -> dict[str, Any]:
    times = side.manifest["figures"].get("latency", {}).get(side.shown.precision) or {}
    return {"bundle": side.shown, "heads": heads_to_json(side.heads), "latency": dict(times)}


def _promised(side: Side) -> Baseline:
    """Return the baseline that a manifest alone gives."""
    figures = side.manifest["figures"]
    accuracy = dict(figures["accuracy"].get(side.shown.precision) or {})
    return Baseline(accuracy=accuracy, where=str(figures.get("measured_on", "")), **_common(side))


def _measured(side: Side, images: Labelled, device: Device) -> Baseline:
    """Return the baseline of a bundle that was run on images.

    Raises:
        UsageError: its logits are not numbers.
    """
    from edgetune.verify.metrics import task_figures

    answers = device.answers(side, images)
    if not answers.finite or answers.constant:
        raise UsageError(f"{side.shown.given} gives no answers that could be a baseline: its logits are not numbers that vary")
    figures = task_figures(answers.logits, images.targets, side.heads)
    parts = zip(side.heads, columns_of(side.heads), strict=True)
    decided = {
        head.name: Decisions.pack(decisions(answers.logits[:, columns], head))
        for head, columns in parts
        if head.kind != REGRESSION
    }
    if isinstance(figures, Figures):
        accuracy: Mapping[str, Any] = figures.model_dump(mode="json", exclude=FOR_A_READER)
    else:
        accuracy = {"heads": {name: one.model_dump(mode="json", exclude=FOR_A_READER) for name, one in figures.heads.items()}}
    return Baseline(
        accuracy=dict(accuracy),
        images=Images.model_validate(images.facts()),
        decisions=decided,
        where=device.where,
        environment={key: device.environment[key] for key in KEPT_OF_ENVIRONMENT if key in device.environment},
        **_common(side),
    )
