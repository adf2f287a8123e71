"""Ranges of activations from calibration images, in a stream: memory does not grow with the number of images.

Two passes: the first finds each tensor's extremes, the second counts how often each value between them occurs. Only one small
batch of activations is alive at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.errors import Fault, GraphError
from edgetune.quantize.graph import MOVES, Grid, QuantGraph, integer_limits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgetune.progress import Progress

__all__ = ["Batches", "Histogram", "calibrate", "observe", "stream"]

BINS = 2048
VALUES_AT_ONCE = 2**13
# The exponent of the rounding error that a range minimises: 3 weighs rare large errors more than the mean square does, and
# measures better than it on the logits.
P_NORM = 3.0
SHRINKS = 40
TINY = 1e-30
# A narrower range is taken for a tensor that is always zero.
SMALLEST_RANGE = 1e-12

# A function that starts the stream of calibration images anew: batches of uint8 `[n, H, W, K]`.
Batches = Callable[[], Iterator["npt.NDArray[np.uint8]"]]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often the values of a tensor occur, between its extremes.

    Attributes:
        low: the smallest value seen.
        high: the largest value seen.
        counts: float64 `[BINS]`.
    """

    low: float
    high: float
    counts: npt.NDArray[np.float64]

    @property
    def width(self) -> float:
        """From the smallest to the largest value; never zero, so that one can divide by it."""
        return max(self.high - self.low, TINY)


def stream(graph: QuantGraph, names: Sequence[str], batches: Batches) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Yield the values of the named tensors of the fp32 graph, one batch of images at a time."""
    import onnx
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    outputs = {value.name for value in model.graph.output}
    for name in names:
        if name not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # An arena keeps its largest batch for ever, and the threads' number must not change a sum.
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = model.graph.input[0].name
    for batch in batches():
        yield dict(zip(names, session.run(list(names), {source: batch}), strict=True))


def observe(
    graph: QuantGraph, names: Sequence[str], batches: Batches, *, progress: Progress, total: int, histograms: bool
) -> dict[str, Histogram]:
    """Return what the calibration images make of each tensor.

    Args:
        graph: the fp32 graph.
        names: the tensors.
        batches: starts the stream of images.
        progress: told of each batch.
        total: the number of images.
        histograms: false leaves out the second pass; the counts are then zero.
    """
    import numpy as np

    passes = 2 if histograms else 1
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    done = 0
    for values in stream(graph, names, batches):
        for name, value in values.items():
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
            if not low[name] > -np.inf or not high[name] < np.inf:
                fault = Fault(where=name, problem="NaN or an infinity on the calibration images")
                raise GraphError("the fp32 model is broken", faults=[fault], remedy="train again with a lower train.lr")
        done += len(next(iter(values.values())))
        progress.advance("calibration", done, passes * total)
    found = {name: Histogram(low=low[name], high=high[name], counts=np.zeros(BINS)) for name in names}
    for values in stream(graph, names, batches) if histograms else ():
        for name, value in values.items():
            _count(found[name], value.ravel())
        done += len(next(iter(values.values())))
        progress.advance("calibration", done, passes * total)
    return found


def _count(histogram: Histogram, values: npt.NDArray[np.float32]) -> None:
    """Add values to a histogram, few at a time: large temporary arrays of all sizes would leave holes in the heap."""
    import numpy as np

    for start in range(0, len(values), VALUES_AT_ONCE):
        part = values[start : start + VALUES_AT_ONCE]
        bins = ((part - histogram.low) * (BINS / histogram.width)).astype(np.intp)
        # The largest value falls behind the last bin; none falls before the first.
        counts = np.bincount(bins, minlength=BINS + 1)
        histogram.counts[:] += counts[:BINS]
        histogram.counts[-1] += counts[BINS:].sum()


def calibrate(graph: QuantGraph, batches: Batches, *, method: str, progress: Progress, total: int) -> QuantGraph:
    """Give every activation its grid.

    Args:
        graph: the fp32 graph.
        batches: starts the stream of images.
        method: `minmax` or `pnorm`.
        progress: told of each batch.
        total: the number of images.
    """
    names = graph.activation_names()
    moved = _moved(graph)
    roots = [name for name in names if name not in moved and name not in graph.activations]
    seen = observe(graph, roots, batches, progress=progress, total=total, histograms=method == "pnorm")
    grids = dict(graph.activations)
    for name in roots:
        low, high = _within_clamp(graph, name, seen[name].low, seen[name].high)
        if method == "pnorm":
            low, high = search_range(seen[name], low, high, steps=_steps(graph))
        kind, symmetric = graph.rules.activation_type, graph.rules.symmetric_activations
        grids[name] = make_grid(low, high, kind, symmetric=symmetric, limits=graph.clamp_limits(name))
    for name in names:
        if name in moved:
            grids[name] = grids[moved[name]]
    step = {"step": f"activation ranges ({method})", "images": total, "tensors": len(grids)}
    return graph.updated(step, activations=grids)


def _moved(graph: QuantGraph) -> dict[str, str]:
    """Return, for each tensor that was only moved (flattened, pooled by maximum), the one whose grid it shares."""
    moved: dict[str, str] = {}
    for node in graph.model.graph.node:
        if node.op_type in MOVES and graph.is_integer(node):
            moved[node.output[0]] = moved.get(node.input[0], node.input[0])
    return moved


def _steps(graph: QuantGraph) -> int:
    low, high = integer_limits(graph.rules.activation_type)
    return high - low


def _within_clamp(graph: QuantGraph, name: str, low: float, high: float) -> tuple[float, float]:
    """Return a range that lies inside the Relu or Clip before the tensor, so that the runtime may drop that."""
    limits = graph.clamp_limits(name)
    if limits is None:
        return low, high
    return max(low, limits[0]), min(high, limits[1])


def search_range(histogram: Histogram, low: float, high: float, *, steps: int) -> tuple[float, float]:
    """Return the range inside [low, high] whose rounding and clipping errors have the smallest p-norm.

    Both ends shrink towards zero, each by its own factor; an end at zero stays there. Error of a value x on the grid:
    |x - q(x)|^p, weighted by how often x occurs.

    Args:
        histogram: the values.
        low: the lower end to start from.
        high: the upper end to start from.
        steps: the number of steps of the grid.
    """
    import numpy as np

    low, high = min(low, 0.0), max(high, 0.0)
    centres = histogram.low + (np.arange(BINS) + 0.5) * (histogram.width / BINS)
    used = histogram.counts > 0
    centres, counts = centres[used], histogram.counts[used]
    factors = np.linspace(1.0, 0.2, SHRINKS)

    def error(bottom: float, top: float) -> float:
        scale = max(top - bottom, 1e-12) / steps
        zero = np.round(-bottom / scale)
        rounded = (np.clip(np.round(centres / scale) + zero, 0, steps) - zero) * scale
        return float(np.sum(counts * np.abs(centres - rounded) ** P_NORM))

    if low < 0:  # one sweep per end is as good as the whole plane: the errors of the two ends add up
        low *= min(factors, key=lambda factor: error(low * factor, high))
    if high > 0:
        high *= min(factors, key=lambda factor: error(low, high * factor))
    return low, high


def make_grid(low: float, high: float, kind: str, *, symmetric: bool, limits: tuple[float, float] | None = None) -> Grid:
    """Return the grid of an 8-bit type that covers [low, high] and holds zero exactly.

    Args:
        low: the smallest value to be represented.
        high: the largest value to be represented.
        kind: uint8 or int8.
        symmetric: put the zero point in the middle of the type.
        limits: no integer of an asymmetric grid stands for a value outside of them, rounding of scale and zero point included:
            only then does the runtime drop the clamp that they belong to.
    """
    import numpy as np

    smallest, largest = integer_limits(kind)
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < SMALLEST_RANGE:
        # The calibration images say nothing about the scale of a tensor that is zero for all of them.
        low, high = (max(-1.0, limits[0]), min(1.0, limits[1])) if limits else (0.0, 1.0)
        low, high = min(low, 0.0), max(high, SMALLEST_RANGE)
    if symmetric:
        middle = (smallest + largest + 1) // 2
        return Grid(scale=float(np.float32(max(-low, high) / (largest - middle))), zero_point=middle)
    scale = np.float32((high - low) / (largest - smallest))
    zero = int(np.clip(round(smallest - low / float(scale)), smallest, largest))
    if limits is not None and limits[0] <= 0.0 <= limits[1]:
        below, above = np.float32(zero - smallest), np.float32(largest - zero)
        for reach, limit in ((below, -limits[0]), (above, limits[1])):
            if reach * scale > limit > 0.0:
                scale = np.float32(limit / reach)
                scale = np.nextafter(scale, np.float32(0.0)) if reach * scale > limit else scale
    return Grid(scale=float(scale), zero_point=zero)
