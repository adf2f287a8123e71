"""Which layer does what damage: each alone in integers, everything else in float, compared with fp32 on held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.quantize.floats import in_float
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.heldout import HeldOut, Score

if TYPE_CHECKING:
    from edgetune.progress import Progress

__all__ = ["Damage", "sensitivity"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What one layer in integers does alone.

    Attributes:
        layer: the node's name.
        operator: its type.
        score: of the graph with this layer alone in integers: its weight, its input and its output.
    """

    layer: str
    operator: str
    score: Score


def sensitivity(graph: QuantGraph, held_out: HeldOut, progress: Progress) -> list[Damage]:
    """Return the damage of each quantized layer, the largest first.

    Args:
        graph: with grids for all activations and weights.
        held_out: the images.
        progress: told of each layer.
    """
    layers = graph.layers()
    integer = [node.name for node in graph.model.graph.node if graph.is_integer(node)]
    found = []
    for done, layer in enumerate(layers, start=1):
        alone = in_float(graph, {name: "another layer is looked at" for name in integer if name != layer.name})
        found.append(Damage(layer=layer.name, operator=layer.op_type, score=held_out.score(alone)))
        progress.advance("sensitivity", done, len(layers))
    return sorted(found, key=lambda damage: -damage.score.divergence)
