"""What every ONNX file of ours says about itself, so that the one file is enough to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgetune.artefacts import Preprocessing
from edgetune.device.heads import Head, column_names, default_heads, heads_from_json, heads_to_json
from edgetune.files import canonical_json

if TYPE_CHECKING:
    import onnx

__all__ = ["Metadata", "read_metadata", "write_metadata"]


class Metadata(NamedTuple):
    """What a model's metadata says; empty where it has none.

    Attributes:
        classes: a name for every logit.
        preprocessing: from a decoded image to the input.
        provenance: what the file was made from.
        heads: what the columns of the logits mean; those of a classifier where there are only classes.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing | None
    provenance: dict[str, str]
    heads: tuple[Head, ...]


def write_metadata(
    model: onnx.ModelProto, heads: Sequence[Head], preprocessing: Preprocessing, provenance: Mapping[str, str]
) -> None:
    """Write heads, labels, preprocessing and provenance into a model's metadata, replacing what stood there under our names."""
    entries = {
        "edgetune.heads": canonical_json(heads_to_json(heads)).decode(),
        "edgetune.labels": canonical_json(list(column_names(heads))).decode(),
        "edgetune.preprocessing": canonical_json(preprocessing.to_dict()).decode(),
        "edgetune.provenance": canonical_json(dict(provenance)).decode(),
    }
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key not in entries}
    del model.metadata_props[:]
    for key, value in sorted({**kept, **entries}.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def read_metadata(model: onnx.ModelProto) -> Metadata:
    """Return what a model's metadata says.

    Raises:
        ValueError: it is not what `write_metadata` writes, or the heads are not those of the labels.
        TypeError: likewise.
    """
    entries = {entry.key: entry.value for entry in model.metadata_props}
    spec = entries.get("edgetune.preprocessing")
    classes = tuple(json.loads(entries.get("edgetune.labels", "[]")))
    heads: tuple[Head, ...] = ()
    if "edgetune.heads" in entries:
        heads = heads_from_json(json.loads(entries["edgetune.heads"]))
    elif classes:
        heads = default_heads(classes)
    if heads and column_names(heads) != classes:
        raise ValueError("the heads' columns are not what the labels name")
    return Metadata(
        classes=classes,
        preprocessing=Preprocessing.from_dict(json.loads(spec)) if spec else None,
        provenance=json.loads(entries.get("edgetune.provenance", "{}")),
        heads=heads,
    )
