"""A graph that was made for a fixed number of images, opened to any number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["open_batch"]


def open_batch(model: onnx.ModelProto) -> int:
    """Let each Reshape to a fixed shape take its first side from what is left: that is where images are counted.

    Nothing else of a common graph holds the number of images. Whether this one does is seen when several images are run at
    once: where a graph counts images elsewhere than first, or bakes their number in, that fails or gives other numbers.

    Args:
        model: whose only input has a batch of a fixed size; it is changed.

    Returns:
        The number of nodes changed.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    shapes = _shapes(onnx.shape_inference.infer_shapes(model, data_prop=True))
    targets = _constants(graph)
    count = 0
    for node in _reached(graph):
        target = targets.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
        found = shapes.get(node.output[0])
        # -1 and 0 (a copy of the input's side) are open already.
        if target is None or not len(target) or target[0] <= 0 or not found:
            continue
        name = f"{node.output[0]}.any_batch"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, *found[1:]], np.int64), name))
        node.input[1] = name
        count += 1
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.value_info[:]
    return count


def _shapes(inferred: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that are known to the last side."""
    graph = inferred.graph
    found = {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in [*graph.value_info, *graph.output]
    }
    return {name: shape for name, shape in found.items() if all(shape)}


def _constants(graph: onnx.GraphProto) -> Mapping[str, list[int]]:
    """Return what each constant that can be the target of a Reshape holds."""
    from onnx import TensorProto, numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant" and node.attribute}
    return {
        name: numpy_helper.to_array(tensor).tolist()
        for name, tensor in tensors.items()
        if tensor.data_type == TensorProto.INT64 and len(tensor.dims) == 1
    }


def _reached(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that images come through; a Reshape of weights keeps its shape."""
    constants = {tensor.name for tensor in graph.initializer}
    reached = {value.name for value in graph.input} - constants
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            yield node
