"""Layers in float where that is measured to pay: the first ones, where it is no slower, and the worst, where it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.quantize.floats import in_float
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.ladder import FP32
from edgetune.quantize.sensitivity import Damage, sensitivity

if TYPE_CHECKING:
    from edgetune.quantize.ladder import Ladder

__all__ = ["float_stem", "float_worst"]

# The first layers see large maps with few channels, where integer kernels gain least and errors travel farthest. So many are
# tried; the next batch only where the last of the one before it was no slower than any.
STEMS = ((1, 2, 3, 4), (6, 8), (12, 16), (24, 32))
# Two medians that are nearer than this are the same.
SAME_LATENCY = 1.01
# So many of the worst layers are timed one by one.
MOST_TIMED = 12
FAST_ENOUGH = "measured on the target to be no slower in float, and nearer to fp32"
NEEDED = "does the most damage in integers"


def float_stem(ladder: Ladder) -> QuantGraph:
    """Return the graph with the first layers in float, as many as bring it nearest to fp32 at no cost in latency.

    Args:
        ladder: has ranges and corrections, the held-out images and a timer.
    """
    best = ladder.best.graph
    layers = [node.name for node in best.layers()]
    names = layers[: len(layers) // 2]
    latency = _stem_latency(ladder, names)
    fit = [count for count in latency if latency[count] <= min(latency.values()) * SAME_LATENCY]
    graphs = {count: _with_floats(ladder, names[:count], FAST_ENOUGH) if count else best for count in fit}
    scores = {count: ladder.held_out.score(graph).divergence for count, graph in graphs.items()}
    chosen = min(fit, key=lambda count: (scores[count], count))
    told = ", ".join(f"{count} layers {100 * latency[count]:.0f} %" for count in latency)
    return graphs[chosen].updated({"step": "float stem", "layers": chosen, "found": f"latency: {told}; {chosen} in float"})


def _stem_latency(ladder: Ladder, names: list[str]) -> dict[int, float]:
    """Return, for numbers of first layers in float, the latency over that of none."""
    assert ladder.timer is not None
    latency = {0: 1.0}
    for batch in STEMS:
        counts = [count for count in batch if count <= len(names)]
        if not counts:
            break
        # What the biases are does not change the time.
        graphs = {str(count): _with_floats(ladder, names[:count], FAST_ENOUGH, corrected=False) for count in counts}
        found = ladder.timer({"0": ladder.best.graph, **graphs})
        latency |= {count: found[str(count)] / found["0"] for count in counts}
        if latency[counts[-1]] > min(latency.values()) * SAME_LATENCY:
            break
    return latency


def float_worst(ladder: Ladder, prepared: QuantGraph) -> QuantGraph:
    """Return the graph with the fewest layers in float that bring it within the tolerance, at the least latency.

    Layers are left out from the worst on, and, where latency can be measured, from the one on that gives most for its time in
    float. For either order the fewest that are enough are looked for; the faster of the two graphs is kept. Where no number of
    layers is enough, none is left in float: it would cost time and still not be what is asked for.

    Args:
        ladder: whose best graph is not within it.
        prepared: in fp32.
    """
    found = sensitivity(_ranged(ladder), ladder.held_out, ladder.progress)
    damages = [damage for damage in found if damage.layer not in ladder.best.graph.left_float]
    if len(damages) < 2:
        return ladder.best.graph.updated({"step": "float layers", "layers": 0, "found": "no layer would be left in integers"})
    orders = [[damage.layer for damage in damages]]
    if ladder.timer is not None:
        orders.append(_by_worth(ladder, damages))
    enough = [one for one in (_fewest(ladder, order) for order in orders) if one is not None]
    if not enough:
        told = f"even with all layers but one in float, fewer than {ladder.agreement_percent:g} % of the decisions are the same"
        return ladder.best.graph.updated({"step": "float layers", "layers": 0, "found": told})
    names, graph = _least_latency(ladder, enough)
    told = ", ".join(names)
    learnt = ladder.reconstructed(graph, prepared)
    if ladder.meets_tolerance(ladder.held_out.score(learnt)):
        graph = learnt
    else:
        told += "; not reconstructed, as they would not be enough any more"
    told += _against_fp32(ladder, graph)
    return graph.updated({"step": "float layers", "layers": len(names), "found": told})


def _against_fp32(ladder: Ladder, graph: QuantGraph) -> str:
    """Return, where it is so, that what is left in integers gains no time any more; `verify` decides what is shipped."""
    if ladder.timer is None:
        return ""
    latency = ladder.timer({FP32: ladder.fp32, "": graph})
    if latency[""] * SAME_LATENCY < latency[FP32]:
        return ""
    return f"; so many that it is no faster than fp32 ({latency['']:.3f} ms against {latency[FP32]:.3f} ms)"


def _fewest(ladder: Ladder, order: list[str]) -> tuple[list[str], QuantGraph] | None:
    """Return the shortest beginning of an order of layers that is enough in float, and its graph; None if none is."""
    graphs: dict[int, QuantGraph] = {}

    def enough(count: int) -> bool:
        graphs[count] = _with_floats(ladder, order[:count], NEEDED)
        return ladder.meets_tolerance(ladder.held_out.score(graphs[count]))

    most = len(order) - 1
    few, many = 0, 1
    while not (found := enough(many)) and many < most:
        few, many = many, min(2 * many, most)
    if not found:
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return order[:many], graphs[many]


def _by_worth(ladder: Ladder, damages: list[Damage]) -> list[str]:
    """Return the layers by what each takes away from the damage per time that it costs in float; those not timed follow."""
    assert ladder.timer is not None
    worst = damages[:MOST_TIMED]
    graphs = {damage.layer: _with_floats(ladder, [damage.layer], NEEDED, corrected=False) for damage in worst}
    latency = ladder.timer({"": ladder.best.graph, **graphs})
    # Less than the same time is noise, and no layer is free.
    least = (SAME_LATENCY - 1) * latency[""]
    costs = {name: max(latency[name] - latency[""], least) for name in graphs}
    ordered = sorted(worst, key=lambda damage: -damage.score.divergence / costs[damage.layer])
    return [damage.layer for damage in (*ordered, *damages[MOST_TIMED:])]


def _least_latency(ladder: Ladder, found: list[tuple[list[str], QuantGraph]]) -> tuple[list[str], QuantGraph]:
    """Return the fastest."""
    if len(found) == 1 or ladder.timer is None:
        return found[0]
    latency = ladder.timer({str(number): graph for number, (_, graph) in enumerate(found)})
    return found[min(range(len(found)), key=lambda number: latency[str(number)])]


def _ranged(ladder: Ladder) -> QuantGraph:
    """Return the graph as it was when it had only its grids."""
    return next(rung.graph for rung in reversed(ladder.rungs) if rung.kept and rung.name.startswith("ranges"))


def _with_floats(ladder: Ladder, names: list[str], reason: str, *, corrected: bool = True) -> QuantGraph:
    graph = in_float(_ranged(ladder), {**ladder.best.graph.left_float, **dict.fromkeys(names, reason)})
    return ladder.corrected(graph) if corrected and ladder.recipe.bias_correction else graph
