"""What the runner needs of a bundle, read from its manifest after the files were checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .digest import MANIFEST, check_bundle
from .exitcodes import ExitCode, RunnerError
from .heads import Head, column_names, default_heads, heads_from_json
from .preprocess import Preprocessing
from .session import options_faults


@dataclass(frozen=True)
class ShippedModel:
    """A verified bundle's model and how to use it.

    Attributes:
        folder: the bundle.
        path: the ONNX file.
        sha256: of the ONNX file, as the manifest has it and as it was found.
        classes: a name for every logit, in their order; see `heads.column_names`.
        heads: the tasks, and which logits belong to each.
        preprocessing: from a decoded image to the model's input.
        session: options for `open_session`.
        manifest: all of `manifest.json`.
    """

    folder: Path
    path: Path
    sha256: str
    classes: tuple[str, ...]
    heads: tuple[Head, ...]
    preprocessing: Preprocessing
    session: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def golden(self) -> Path:
        """The folder of the golden images."""
        return self.folder / "golden"


def read_bundle(folder: Path | str) -> ShippedModel:
    """Return the model of a bundle, after checking that the bundle is exactly what was built.

    Raises:
        RunnerError: ARTEFACT: a file is missing, added or changed, or the manifest does not say what it must; every fault.
    """
    folder = Path(folder)
    manifest = check_bundle(folder)
    faults = []
    model = manifest.get("model")
    name = model.get("file") if isinstance(model, dict) else None
    if not isinstance(name, str) or name not in manifest["files"]:
        faults.append(f"model.file: got {name!r}, expected a name of the table files")
    classes = manifest.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(entry, str) for entry in classes):
        faults.append("classes: expected a list of names")
        classes = []
    heads: tuple[Head, ...] = ()
    try:
        heads = heads_of(manifest) if classes else ()
    except ValueError as fault:
        faults.append(str(fault))
    faults += options_faults(manifest.get("session"))
    preprocessing = None
    try:
        preprocessing = Preprocessing.from_dict(manifest.get("preprocessing", {}))
    except ValueError as fault:
        faults.append(f"preprocessing: {fault}")
    if faults or preprocessing is None:
        raise RunnerError(f"{folder / MANIFEST} cannot be used", ExitCode.ARTEFACT, tuple(faults))
    return ShippedModel(
        folder=folder,
        path=folder / str(name),
        sha256=manifest["files"][name]["sha256"],
        classes=tuple(classes),
        heads=heads,
        preprocessing=preprocessing,
        session=manifest["session"],
        manifest=manifest,
    )


def heads_of(manifest: Mapping[str, Any]) -> tuple[Head, ...]:
    """Return what the columns of a bundle's logits mean; a manifest that does not say it is that of a classifier.

    Raises:
        ValueError: the heads are none, or not those that the manifest's `classes` name.
    """
    classes = tuple(manifest["classes"])
    heads = heads_from_json(manifest["heads"]) if "heads" in manifest else default_heads(classes)
    if column_names(heads) != classes:
        raise ValueError("heads: their columns are not what the classes name")
    if len({head.name for head in heads}) != len(heads):
        raise ValueError("heads: two of them have the same name")
    return heads
