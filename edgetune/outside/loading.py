"""An ONNX file from the disk, with the weights that stand in files beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgetune.errors import Fault, GraphError
from edgetune.files import sha256_file

if TYPE_CHECKING:
    import onnx

__all__ = ["load_model"]

LARGEST_FILE = 2**31


def load_model(path: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the model with its weights inside, and the digests of the files beside it that held some.

    Raises:
        GraphError: it is not an ONNX file, or a file with weights does not lie beside it, or all is too large for one file.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as fault:
        raise GraphError(f"{path} is not an ONNX file: {fault}") from fault
    if not model.graph.node:
        raise GraphError(f"{path} is not an ONNX file: it has no graph")
    apart = sorted({ExternalDataInfo(tensor).location for tensor in _tensors(model) if uses_external_data(tensor)})
    faults = [
        Fault(where=name, problem="is not a file beside the model")
        for name in apart
        if len(PurePosixPath(name).parts) != 1 or name == ".." or not (path.parent / name).is_file()
    ]
    if faults:
        raise GraphError(f"{path.name} has weights in other files", faults=faults, remedy="put them into the model's folder")
    digests = {name: sha256_file(path.parent / name) for name in apart}
    try:
        load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as fault:
        raise GraphError(f"{path.name} has weights in other files that cannot be read: {fault}") from fault
    if model.ByteSize() >= LARGEST_FILE:
        raise GraphError(f"{path.name} has {model.ByteSize()} bytes; one ONNX file holds at most 2 GiB")
    return model, digests


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the weights and the constants among the nodes."""
    yield from model.graph.initializer
    yield from (item.t for node in model.graph.node for item in node.attribute if item.HasField("t"))
