"""Ranges of activations from calibration images, in a stream: memory does not grow with the number of images.

Two passes: the first finds each tensor's extremes, the second counts how often each value between them occurs. Only one small
batch of activations is alive at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from edgetune.errors import Fault, GraphError
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.histogram import Histogram
from edgetune.quantize.ranges import Method, choose_range, make_grid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgetune.progress import Progress

__all__ = ["Batches", "calibrate", "observe", "stream"]

# A function that starts the stream of calibration images anew: batches of uint8 `[n, H, W, K]`.
Batches = Callable[[], Iterator["npt.NDArray[np.uint8]"]]


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
        histograms: false leaves out the second pass; nothing is counted then.

    Raises:
        GraphError: a value is NaN or infinite.
    """
    if not names:
        return {}
    passes = 2 if histograms else 1
    found = {name: Histogram(low=0.0, high=0.0) for name in names}
    done = 0
    for values in stream(graph, names, batches):
        for name, value in values.items():
            low, high = float(value.min()), float(value.max())
            # NaN loses every comparison: it would be forgotten among extremes. All tensors behind the first are broken, too.
            if not (isfinite(low) and isfinite(high)):
                fault = Fault(where=name, problem="NaN or an infinity on the calibration images")
                raise GraphError("the fp32 model is broken", faults=[fault], remedy="train again with a lower train.lr")
            found[name].low, found[name].high = min(found[name].low, low), max(found[name].high, high)
        done += len(next(iter(values.values())))
        progress.advance("calibration", done, passes * total)
    for values in stream(graph, names, batches) if histograms else ():
        for name, value in values.items():
            found[name].add(value)
        done += len(next(iter(values.values())))
        progress.advance("calibration", done, passes * total)
    return found


def calibrate(
    graph: QuantGraph, batches: Batches, *, method: Method, percentile: float = 99.99, progress: Progress, total: int
) -> QuantGraph:
    """Give every activation its grid.

    Args:
        graph: the fp32 graph.
        batches: starts the stream of images.
        method: how ranges are chosen.
        percentile: for the method of that name: the part of the values that lies in the range, in percent.
        progress: told of each batch.
        total: the number of images.

    Raises:
        GraphError: an activation is NaN or infinite.
    """
    names = graph.activation_names()
    roots = [name for name in names if name not in graph.moved and name not in graph.activations]
    seen = observe(graph, roots, batches, progress=progress, total=total, histograms=method != "minmax")
    kind, symmetric = graph.rules.activation_type, graph.rules.symmetric_activations
    grids = dict(graph.activations)
    for name in roots:
        low, high = choose_range(seen[name], method=method, percentile=percentile, kind=kind, symmetric=symmetric)
        grids[name] = make_grid(low, high, kind, symmetric=symmetric, limits=graph.clamp_limits(name))
    for name in names:
        if name in graph.moved:
            grids[name] = grids[graph.moved[name]]
    how = f"percentile {percentile:g}" if method == "percentile" else method
    step = {"step": f"activation ranges ({how})", "images": total, "tensors": len(grids)}
    return graph.updated(step, activations=grids)
