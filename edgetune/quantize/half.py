"""Half precision: an fp32 ONNX file with its weights and arithmetic in float16, for providers that are made for that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Dataset, OnnxModel
from edgetune.errors import GraphError
from edgetune.files import sha256_file, write_atomic
from edgetune.onnxfile import read_metadata, write_metadata
from edgetune.quantize.parity import onnx_parity

if TYPE_CHECKING:
    import onnx

__all__ = ["to_half"]

LARGEST = 65504.0
"""The largest float16; ONNX Runtime's converter would cut a larger weight to it."""


def to_half(source: OnnxModel, dataset: Dataset, *, folder: Path) -> OnnxModel:
    """Return an fp32 classifier in float16; image and logits keep the contract's types.

    Args:
        source: the fp32 model.
        dataset: its test images measure the parity.
        folder: where `model.onnx` is written.

    Raises:
        GraphError: a weight is larger than float16 can say.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source.path)
    _require_small_weights(model)
    half = convert_float_to_float16(model, keep_io_types=True)
    provenance = read_metadata(half).provenance
    write_metadata(half, source.heads, source.preprocessing, {**provenance, "fp32_sha256": source.sha256})
    onnx.checker.check_model(half)
    path = folder / "model.onnx"
    write_atomic(path, half.SerializeToString(deterministic=True))
    return source.model_copy(
        update={
            "stage_name": "quantize",
            "precision": "fp16",
            "sha256": sha256_file(path),
            "size_bytes": path.stat().st_size,
            "parity": onnx_parity(source, path, dataset),
            "steps": ({"step": "weights and arithmetic in float16"},),
            "warnings": (),
        }
    ).at(folder)


def _require_small_weights(model: onnx.ModelProto) -> None:
    import numpy as np
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size and float(np.abs(values).max()) > LARGEST:
            raise GraphError(
                f"the weight {tensor.name} has a value of {float(np.abs(values).max()):g}, and float16 ends at {LARGEST:g}",
                remedy="set quantize.precision = fp32",
            )
