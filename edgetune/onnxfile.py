"""What every ONNX file of ours says about itself, so that the one file is enough to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgetune.artefacts import Preprocessing
from edgetune.files import canonical_json

if TYPE_CHECKING:
    import onnx

__all__ = ["read_metadata", "write_metadata"]


def write_metadata(
    model: onnx.ModelProto, classes: Sequence[str], preprocessing: Preprocessing, provenance: Mapping[str, str]
) -> None:
    """Write labels, preprocessing and provenance into a model's metadata, replacing what stood there under our names."""
    entries = {
        "edgetune.labels": canonical_json(list(classes)).decode(),
        "edgetune.preprocessing": canonical_json(preprocessing.to_dict()).decode(),
        "edgetune.provenance": canonical_json(dict(provenance)).decode(),
    }
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key not in entries}
    del model.metadata_props[:]
    for key, value in sorted({**kept, **entries}.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def read_metadata(model: onnx.ModelProto) -> tuple[tuple[str, ...], Preprocessing | None, dict[str, str]]:
    """Return labels, preprocessing and provenance of a model's metadata; empty where it has none."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    spec = entries.get("edgetune.preprocessing")
    return (
        tuple(json.loads(entries.get("edgetune.labels", "[]"))),
        Preprocessing.from_dict(json.loads(spec)) if spec else None,
        json.loads(entries.get("edgetune.provenance", "{}")),
    )
