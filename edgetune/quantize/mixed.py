"""Layers in float where that is measured to pay: the first ones, where it is no slower, and the worst, where it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.quantize.floats import in_float
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.sensitivity import sensitivity

if TYPE_CHECKING:
    from edgetune.quantize.ladder import Ladder

__all__ = ["float_stem", "float_worst"]

# The first layers see large maps with few channels, where integer kernels gain least and errors travel farthest.
LONGEST_STEM = 4
# Two medians that are nearer than this are the same.
SAME_LATENCY = 1.01
FAST_ENOUGH = "measured on the target to be no slower in float, and nearer to fp32"
NEEDED = "does the most damage in integers"


def float_stem(ladder: Ladder) -> QuantGraph:
    """Return the graph with the first layers in float, as many as bring it nearest to fp32 at no cost in latency.

    Args:
        ladder: has ranges and corrections, the held-out images and a timer.
    """
    assert ladder.timer is not None
    best = ladder.best.graph
    layers = [node.name for node in best.layers()]
    names = layers[: min(LONGEST_STEM, len(layers) // 2)]
    graphs = {0: best}
    for count in range(1, len(names) + 1):
        graphs[count] = _with_floats(ladder, names[:count], FAST_ENOUGH)
    latency = ladder.timer({str(count): graph for count, graph in graphs.items()})
    fastest = min(latency.values())
    fit = [count for count in graphs if latency[str(count)] <= fastest * SAME_LATENCY]
    scores = {count: ladder.held_out.score(graphs[count]).divergence for count in fit}
    chosen = min(fit, key=lambda count: (scores[count], count))
    told = ", ".join(f"{count} layers {latency[str(count)]:.3f} ms" for count in graphs)
    return graphs[chosen].updated({"step": "float stem", "layers": chosen, "found": f"{told}; {chosen} in float"})


def float_worst(ladder: Ladder, prepared: QuantGraph) -> QuantGraph:
    """Return the graph with the fewest of its worst layers in float that bring it within the tolerance.

    Args:
        ladder: whose best graph is not within it.
        prepared: in fp32.
    """
    found = sensitivity(_ranged(ladder), ladder.held_out, ladder.progress)
    damages = [damage for damage in found if damage.layer not in ladder.best.graph.left_float]
    if len(damages) < 2:
        return ladder.best.graph.updated({"step": "float layers", "layers": 0, "found": "no layer would be left in integers"})
    count = 1
    while True:
        worst = [damage.layer for damage in damages[:count]]
        graph = _with_floats(ladder, worst, NEEDED)
        if ladder.meets_tolerance(ladder.held_out.score(graph)) or count >= len(damages) - 1:
            break
        count = min(2 * count, len(damages) - 1)
    graph = ladder.reconstructed(graph, prepared)
    return graph.updated({"step": "float layers", "layers": len(worst), "found": ", ".join(worst)})


def _ranged(ladder: Ladder) -> QuantGraph:
    """Return the graph as it was when it had only its grids."""
    return next(rung.graph for rung in ladder.rungs if rung.name == "ranges")


def _with_floats(ladder: Ladder, names: list[str], reason: str) -> QuantGraph:
    graph = in_float(_ranged(ladder), {**ladder.best.graph.left_float, **dict.fromkeys(names, reason)})
    return ladder.corrected(graph) if ladder.recipe.bias_correction else graph
