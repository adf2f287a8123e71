"""ONNX operators in torch: what a network between its layers is made of, each as the standard defines it, for inference.

Only what classifiers use, and only the forms that they use; everything else is `Unsupported`, by name, and its caller goes
without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from edgetune.quantize.graph import Unsupported, attribute

if TYPE_CHECKING:
    import onnx

__all__ = ["OPERATORS", "convolve", "require_supported"]

Operator = Callable[["onnx.NodeProto", Sequence[Any]], torch.Tensor]
FLOAT = 1


def require_supported(node: onnx.NodeProto) -> None:
    """Raise `Unsupported` unless a node can be computed here."""
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        raise Unsupported(f"{node.name}: {node.op_type}")
    if len(node.output) != 1:
        raise Unsupported(f"{node.name}: {node.op_type} with {len(node.output)} outputs")
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Unsupported(f"{node.name}: {node.op_type} with auto_pad")
    if node.op_type in ("AveragePool", "MaxPool") and (attribute(node, "ceil_mode", 0) or _dilated(node)):
        raise Unsupported(f"{node.name}: {node.op_type} with ceil_mode or dilations")
    if node.op_type == "Cast" and attribute(node, "to") != FLOAT:
        raise Unsupported(f"{node.name}: a cast to something else than float32")


def _dilated(node: onnx.NodeProto) -> bool:
    return any(step != 1 for step in attribute(node, "dilations", ()))


def convolve(node: onnx.NodeProto, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute a Conv of one or two dimensions."""
    flat = weight.ndim - 2
    pads = list(attribute(node, "pads", [0] * 2 * flat))
    strides, dilations = (list(attribute(node, name, [1] * flat)) for name in ("strides", "dilations"))
    padding: Any = pads[:flat]
    if pads[:flat] != pads[flat:]:
        values, padding = _padded(values, pads, 0.0), 0
    run = {1: F.conv1d, 2: F.conv2d}.get(flat)
    if run is None:
        raise Unsupported(f"{node.name}: Conv over {flat} dimensions")
    return run(values, weight, bias, strides, padding, dilations, attribute(node, "group", 1))


def _padded(values: torch.Tensor, pads: Sequence[int], fill: float) -> torch.Tensor:
    """Pad the last dimensions; ONNX gives all begins, then all ends, torch a pair for each, the last dimension first."""
    half = len(pads) // 2
    pairs = [side for index in reversed(range(half)) for side in (pads[index], pads[half + index])]
    return F.pad(values, pairs, value=fill)


def _gemm(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    left, right, *rest = inputs
    left = left.T if attribute(node, "transA", 0) else left
    right = right.T if attribute(node, "transB", 0) else right
    result: torch.Tensor = (left @ right) * attribute(node, "alpha", 1.0)
    return result + rest[0] * attribute(node, "beta", 1.0) if rest and rest[0] is not None else result


def _clip(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    low, high = [*inputs[1:3], None, None][:2]
    result: torch.Tensor = torch.clamp(inputs[0], low, high) if low is not None or high is not None else inputs[0]
    return result


def _average_pool(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    pads = list(attribute(node, "pads", [0, 0, 0, 0]))
    kernel, strides = list(attribute(node, "kernel_shape")), list(attribute(node, "strides", [1, 1]))
    if pads[:2] != pads[2:]:
        raise Unsupported(f"{node.name}: AveragePool with unequal pads")
    return F.avg_pool2d(inputs[0], kernel, strides, pads[:2], count_include_pad=bool(attribute(node, "count_include_pad", 0)))


def _max_pool(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    values = _padded(inputs[0], list(attribute(node, "pads", [0, 0, 0, 0])), -torch.inf)
    return F.max_pool2d(values, list(attribute(node, "kernel_shape")), list(attribute(node, "strides", [1, 1])))


def _reduce_mean(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    axes = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else list(attribute(node, "axes", ()))
    axes = axes or list(range(inputs[0].ndim))
    result: torch.Tensor = inputs[0].mean(dim=axes, keepdim=bool(attribute(node, "keepdims", 1)))
    return result


def _reshape(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    values, wanted = inputs[0], inputs[1].tolist()
    sides = [values.shape[index] if side == 0 else side for index, side in enumerate(wanted)]
    result: torch.Tensor = values.reshape(sides)
    return result


def _squeeze(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    axes = _axes(node, inputs)
    result: torch.Tensor = inputs[0].squeeze(tuple(axes)) if axes else inputs[0].squeeze()
    return result


def _unsqueeze(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    values = inputs[0]
    axes = _axes(node, inputs)
    rank = values.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        values = values.unsqueeze(axis)
    result: torch.Tensor = values
    return result


def _axes(node: onnx.NodeProto, inputs: Sequence[Any]) -> list[int]:
    found: list[int] = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else list(attribute(node, "axes", ()))
    return found


def _flatten(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    axis = attribute(node, "axis", 1) % (inputs[0].ndim + 1)
    rows = 1
    for side in inputs[0].shape[:axis]:
        rows *= side
    result: torch.Tensor = inputs[0].reshape(rows, -1)
    return result


def _pool_all(node: onnx.NodeProto, inputs: Sequence[Any]) -> torch.Tensor:
    result: torch.Tensor = inputs[0].mean(dim=tuple(range(2, inputs[0].ndim)), keepdim=True)
    return result


OPERATORS: dict[str, Operator] = {
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "Cast": lambda node, inputs: inputs[0].float(),
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(list(inputs), dim=attribute(node, "axis")),
    "Conv": lambda node, inputs: convolve(node, inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None),
    "Div": lambda node, inputs: inputs[0] / inputs[1],
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool_all,
    "HardSigmoid": lambda node, inputs: (attribute(node, "alpha", 0.2) * inputs[0] + attribute(node, "beta", 0.5)).clamp(
        0.0, 1.0
    ),
    "HardSwish": lambda node, inputs: F.hardswish(inputs[0]),
    "Identity": lambda node, inputs: inputs[0],
    "LeakyRelu": lambda node, inputs: F.leaky_relu(inputs[0], attribute(node, "alpha", 0.01)),
    "MatMul": lambda node, inputs: inputs[0] @ inputs[1],
    "MaxPool": _max_pool,
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "ReduceMean": _reduce_mean,
    "Relu": lambda node, inputs: F.relu(inputs[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda node, inputs: torch.sigmoid(inputs[0]),
    "Squeeze": _squeeze,
    "Sub": lambda node, inputs: inputs[0] - inputs[1],
    "Tanh": lambda node, inputs: torch.tanh(inputs[0]),
    "Transpose": lambda node, inputs: inputs[0].permute(*attribute(node, "perm")),
    "Unsqueeze": _unsqueeze,
}
"""From a node and its inputs, in order and None where left out, to its output."""
