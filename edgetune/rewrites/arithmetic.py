"""Multiplications and additions of constants move into the layer before them, pads into the convolution behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.rewrites.graph import Graph, attribute, set_attributes
from edgetune.rewrites.layers import channels, per_channel, scalable, scale_output

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["fold_arithmetic", "fold_pads"]


def fold_arithmetic(graph: Graph) -> int:
    """Move Mul, Div, Add and Sub with a constant per channel into the Conv or Gemm before them, if nothing else reads that."""
    count = 0
    for node in graph.of("Mul", "Div", "Add", "Sub"):
        for index in (0, 1):
            layer = scalable(graph, node.input[index])
            value = graph.floats(node.input[1 - index])
            if layer is None or value is None:
                continue
            rank = graph.array(layer.input[1]).ndim
            constant = per_channel(value, rank, channels(graph, layer))
            change = None if constant is None else _change(node.op_type, constant, layer_first=index == 0)
            if change is not None and scale_output(graph, layer, *change):
                graph.take_over(layer, node)
                count += 1
                break
    return count


def _change(
    operator: str, value: npt.NDArray[np.float64], *, layer_first: bool
) -> tuple[npt.NDArray[np.float64] | float, npt.NDArray[np.float64] | float] | None:
    """Return what `operator` with a constant makes of y as (scale, shift); None if it is not linear in y."""
    if operator == "Mul":
        return value, 0.0
    if operator == "Add":
        return 1.0, value
    if operator == "Sub":
        return (1.0, -value) if layer_first else (-1.0, value)
    return (1.0 / value, 0.0) if layer_first and value.all() else None


def fold_pads(graph: Graph) -> int:
    """Move zeros that a Pad puts around an image into the Conv behind it."""
    count = 0
    for node in graph.of("Pad"):
        reader = graph.only_reader(node.output[0])
        if reader is None or reader.op_type != "Conv" or reader.input[0] != node.output[0]:
            continue
        rank = len(graph.shape(reader.input[1]) or ())
        pads = _zero_pads(graph, node, rank)
        if pads is None or attribute(reader, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            continue
        own = list(attribute(reader, "pads", [0] * 2 * (rank - 2)))
        kept = {item.name: attribute(reader, item.name) for item in reader.attribute if item.name not in ("auto_pad", "pads")}
        set_attributes(reader, **kept, pads=[a + b for a, b in zip(own, pads, strict=True)])
        graph.rewire(reader, [node.input[0], *reader.input[1:]])
        graph.remove(node)
        count += 1
    return count


def _zero_pads(graph: Graph, node: onnx.NodeProto, rank: int) -> list[int] | None:
    """Return the zeros that a Pad adds to height and width, as a Conv counts them; None if it does anything else."""
    value = graph.scalar(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    pads = graph.integers(node.input[1])
    if attribute(node, "mode", b"constant") != b"constant" or value != 0.0 or pads is None or min(pads, default=-1) < 0:
        return None
    axes = graph.integers(node.input[3]) if len(node.input) > 3 and node.input[3] else list(range(rank))
    if axes is None or len(pads) != 2 * len(axes):
        return None
    full = [0] * 2 * rank
    for place, axis in enumerate(axes):
        full[axis % rank], full[rank + axis % rank] = pads[place], pads[len(axes) + place]
    if any(full[:2]) or any(full[rank : rank + 2]):
        return None
    return full[2:rank] + full[rank + 2 :]
