"""Cross-layer equalisation: channels of very different size are brought to one size before they share one weight scale.

Between two convolutions a channel may be divided by any s > 0 and multiplied by it again, as long as what lies between is
positively homogeneous, f(s x) = s f(x): nothing, a ReLU, or a Clip that is one. In fp32 the network stays the same but for
rounding. A ReLU6 is not homogeneous, nor are hard-swish, SiLU and the sigmoid of a squeeze-excite; and a tensor that anything
else reads, such as an addition, has to keep its size.

With r the largest absolute weight of channel i, on its way out of the first layer and into the second, both become
sqrt(r1_i r2_i) by

    s_i = sqrt(r1_i / r2_i),    W1_i := W1_i / s_i,    b1_i := b1_i / s_i,    W2_i := W2_i s_i

(Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.1). Layers that are in two
pairs, such as a depthwise one, need several passes.

The bias counts as one more weight here, in units in which the layer's largest bias is as large as its largest weight. Without
that a channel with next to no weights would be enlarged together with its bias, and with that the range of the activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgetune.quantize.entry import with_constants
from edgetune.quantize.graph import CLAMPS, QuantGraph, attribute

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    Weights = dict[str, npt.NDArray[np.float64]]

__all__ = ["equalisable_pairs", "equalise"]

PASSES = 50
# The passes end when none scales a channel by more than this, as a logarithm.
SETTLED = 1e-3
# Exporters write the largest float32 where a Clip has no limit.
UNLIMITED = 3.4e38


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two convolutions between which channels can be scaled.

    Attributes:
        first: the name of the first one's weight.
        bias: the name of the first one's bias; empty if it has none.
        second: the name of the second one's weight.
        groups: of the second one.
    """

    first: str
    bias: str
    second: str
    groups: int


def equalise(graph: QuantGraph, wanted: bool | Literal["auto"] = "auto") -> QuantGraph:
    """Scale channels between convolutions so that the weights of each layer are about equally large.

    Args:
        graph: before calibration and before the rounding of weights.
        wanted: auto: only where the weights have one scale per tensor, since one per channel leaves nothing to gain.
    """
    import numpy as np

    name = "cross-layer equalisation"
    if wanted == "auto" and graph.rules.per_channel:
        return graph.updated({"step": name, "pairs": 0, "reason": "each channel has a weight scale of its own"})
    if not wanted:
        return graph.updated({"step": name, "pairs": 0, "reason": "not wanted"})
    pairs = equalisable_pairs(graph)
    names = {name for pair in pairs for name in (pair.first, pair.bias, pair.second) if name}
    weights = {name: graph.array(name).astype(np.float64) for name in sorted(names)}
    total = [np.ones(len(weights[pair.first])) for pair in pairs]
    passes = 0
    while pairs and passes < PASSES:
        passes += 1
        scales = [_scale(weights, pair) for pair in pairs]
        total = [before * scale for before, scale in zip(total, scales, strict=True)]
        if all(np.abs(np.log(scale)).max() < SETTLED for scale in scales):
            break
    # How much smaller than another channel of the same tensor one was.
    ratio = max((float(scale.max() / scale.min()) for scale in total), default=1.0)
    step = {"step": name, "pairs": len(pairs), "passes": passes, "largest_ratio": round(ratio, 3)}
    changed = {key: weight.astype(np.float32) for key, weight in weights.items()}
    return graph.updated(step, model=with_constants(graph.model, changed))


def equalisable_pairs(graph: QuantGraph) -> list[Pair]:
    """Return the pairs of quantized convolutions with nothing between them but at most a ReLU, in the order of the graph."""
    pairs = []
    for node in graph.layers():
        second = _only_reader(graph, node)
        if second is not None and second.op_type in CLAMPS and _is_homogeneous(graph, second):
            second = _only_reader(graph, second)
        if node.op_type != "Conv" or second is None or second.op_type != "Conv" or not graph.is_integer(second):
            continue
        bias = node.input[2] if len(node.input) > 2 else ""
        constants = [name for name in (node.input[1], bias, second.input[1]) if name]
        # A constant that another node reads, too, cannot be changed for this one.
        if all(name in graph.constants and len(graph.consumers[name]) == 1 for name in constants):
            groups = int(attribute(second, "group", 1))
            pairs.append(Pair(first=node.input[1], bias=bias, second=second.input[1], groups=groups))
    return pairs


def _only_reader(graph: QuantGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the node that reads another's output as its data, if nothing else reads that."""
    output = node.output[0]
    readers = graph.consumers[output]
    alone = len(readers) == 1 and output not in graph.outputs and list(readers[0].input).count(output) == 1
    return readers[0] if alone and readers[0].input[0] == output else None


def _is_homogeneous(graph: QuantGraph, clamp: onnx.NodeProto) -> bool:
    limits = graph.clamp_limits(clamp.output[0])
    return limits is not None and (limits[0] == 0.0 or limits[0] < -UNLIMITED) and limits[1] > UNLIMITED


def _scale(weights: Weights, pair: Pair) -> npt.NDArray[np.float64]:
    """Equalise one pair in place and return what its channels were divided by."""
    import numpy as np

    first, second = weights[pair.first], weights[pair.second]
    # Output channels of the second layer, grouped, by input channels: [G, O / G, I / G, ...], a view.
    by_group = second.reshape(pair.groups, -1, *second.shape[1:])
    out = np.abs(first).reshape(len(first), -1).max(axis=1)
    if pair.bias:
        bias = np.abs(weights[pair.bias])
        out = np.maximum(out, bias * (out.max() / bias.max() if bias.any() else 0.0))
    into = np.abs(by_group).max(axis=(1, *range(3, by_group.ndim))).ravel()
    # A channel that is dead on either side has no size to bring to another.
    alive = (out > 0) & (into > 0)
    scale: npt.NDArray[np.float64] = np.sqrt(np.where(alive, out, 1.0) / np.where(alive, into, 1.0))
    first /= scale.reshape(-1, *[1] * (first.ndim - 1))
    if pair.bias:
        weights[pair.bias] /= scale
    by_group *= scale.reshape(pair.groups, 1, -1, *[1] * (by_group.ndim - 3))
    return scale
