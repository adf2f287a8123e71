"""Types and shapes of all tensors, as far as ONNX's inference finds them, with names for the sides that are not known."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["LARGEST_SHAPE", "Known", "Shape", "infer", "size_of"]

# Constants with more values than this are weights: what they hold says nothing about shapes.
LARGEST_SHAPE = 64

# A side is a number, a name (the same name is the same number), or not known.
Shape = tuple["int | str | None", ...]
# Per tensor its `TensorProto.DataType` and its shape; None if not even the rank is known.
Known = dict[str, tuple[int, "Shape | None"]]


def size_of(tensor: onnx.TensorProto) -> int:
    """Return how many values a constant has."""
    return prod(tensor.dims)


def infer(model: onnx.ModelProto, weights: Iterable[onnx.TensorProto]) -> Known:
    """Return what is known of each tensor that is computed, and of each input.

    Args:
        model: a graph without its weights, which are too large to be copied about; it is changed.
        weights: what is missing there.
    """
    import onnx
    from onnx import helper

    for value in model.graph.input:
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if side.dim_value < 1 and not side.dim_param:
                side.dim_param = f"{value.name}.{axis}"
    for value in model.graph.output:
        # What a file says of its outputs may be wrong, or was true of another size of the batch.
        value.type.tensor_type.ClearField("shape")
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in weights
    )
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: Known = {}
    for value in [*inferred.input, *inferred.output, *inferred.value_info]:
        facts = value.type.tensor_type
        sides = [side.dim_value if side.HasField("dim_value") else side.dim_param or None for side in facts.shape.dim]
        found[value.name] = (facts.elem_type, tuple(sides) if facts.HasField("shape") else None)
    return found
