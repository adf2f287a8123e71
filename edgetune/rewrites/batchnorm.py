"""Batch normalisation of inference: per channel, y = s x + t with s = gamma / sqrt(variance + epsilon), t = beta - s mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, attribute, set_attributes
from edgetune.rewrites.layers import scalable, scale_output

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["depthwise_norms", "fold_batch_norms"]


def fold_batch_norms(graph: Graph) -> int:
    """Move each BatchNormalization into the Conv or Gemm before it, if nothing else reads what that writes."""
    count = 0
    for node in graph.of("BatchNormalization"):
        layer, change = scalable(graph, node.input[0]), _affine(graph, node)
        if layer is not None and change is not None and scale_output(graph, layer, *change):
            graph.take_over(layer, node)
            count += 1
    return count


def depthwise_norms(graph: Graph) -> int:
    """Make a depthwise 1x1 Conv of each BatchNormalization of images that is left: integer kernels exist for that only.

    For quantization: in float32 it gains nothing.
    """
    import numpy as np

    count = 0
    for node in graph.of("BatchNormalization"):
        change, shape = _affine(graph, node), graph.shape(node.input[0])
        if change is None or shape is None or len(shape) != 4:
            continue
        scale, shift = (value.astype(np.float32) for value in change)
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            continue
        names = [
            graph.add_constant(f"{node.name}.weight", scale.reshape(-1, 1, 1, 1)),
            graph.add_constant(f"{node.name}.bias", shift),
        ]
        graph.rewire(node, [node.input[0], *names])
        node.op_type = "Conv"
        set_attributes(node, group=len(scale), kernel_shape=[1, 1])
        count += 1
    return count


def _affine(graph: Graph, node: onnx.NodeProto) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return s and t `[C]`; None if the statistics are not constants, or are the batch's own."""
    import numpy as np

    gamma, beta, mean, variance = (graph.floats(name) for name in node.input[1:5])
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    if attribute(node, "training_mode", 0) or any(graph.readers(name) or name in graph.outputs for name in node.output[1:]):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        return scale, beta - scale * mean
