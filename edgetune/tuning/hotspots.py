"""Where a model's time goes on a device, layer by layer, and how near each layer comes to the best one of the same run.

The device profiles the nodes of the graph that its ONNX Runtime made (`edgetune.device.operators`) and sends that graph along;
here they are brought back to the layers of the file. What stands beside the times follows from shapes: multiply-accumulates of
the file's layers, and bytes that a node must at least read and write, its weights included (the profile's own `parameter_size`
leaves out weights that were packed when the session was opened).

The roofline is the run's own (Williams, Waterman and Patterson 2009, with the best layers in the place of the machine's peaks):
with P the most multiply-accumulates per second and B the most bytes per second that any layer reached, a layer of intensity I
MAC/byte could reach min(P, I B). That says which layers lag behind the others. It claims nothing about the processor.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import ArtefactError
from edgetune.gate.measuring import Device
from edgetune.gate.sides import Side
from edgetune.optimised import CONVERSIONS, LAYOUT_OPERATORS, Origins
from edgetune.progress import Progress
from edgetune.tuning.asking import meet, request_for
from edgetune.verify.targets.interface import OperatorsRequest

if TYPE_CHECKING:
    import onnx

__all__ = ["Hotspots", "Spot", "hotspots", "joined"]

QUICK = {"warmup": 3, "queries": 10}
SHORTEST_US = 10.0
"""A layer that takes less says little about rates: ONNX Runtime counts whole microseconds."""
BYTES = {"double": 8, "int64": 8, "uint64": 8, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2}
BYTES |= dict.fromkeys(("int8", "uint8", "bool"), 1)
OTHERS = 4


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A layer of the file, or what the runtime put between two of them.

    Attributes:
        layer: the node's name in the file; the runtime's where it made it up.
        operator: of the file, or the runtime's.
        runs_as: the runtime's operators that it became.
        microseconds: of one query.
        macs: multiply-accumulates of one image; 0 where it only moves or converts values, or computes element by element.
        bytes: of activations and weights that are read and written.
        share_percent: of the time of all nodes.
        of_best_percent: how much it reaches of what the best layers of this run would let it; None where there are none.
        bound: what would stop it there: arithmetic or memory.
    """

    layer: str
    operator: str
    runs_as: tuple[str, ...]
    microseconds: float
    macs: int
    bytes: int
    share_percent: float = 0.0
    of_best_percent: float | None = None
    bound: str = ""

    @property
    def macs_per_byte(self) -> float:
        """The arithmetic intensity."""
        return self.macs / self.bytes if self.bytes else 0.0

    @property
    def gmacs_per_s(self) -> float:
        """Multiply-accumulates per second, in thousands of millions."""
        return self.macs / self.microseconds / 1e3 if self.microseconds else 0.0

    @property
    def gbytes_per_s(self) -> float:
        """Bytes per second, likewise."""
        return self.bytes / self.microseconds / 1e3 if self.microseconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        return {
            "layer": self.layer,
            "operator": self.operator,
            "runs_as": list(self.runs_as),
            "microseconds": round(self.microseconds, 3),
            "share_percent": round(self.share_percent, 3),
            "macs": self.macs,
            "bytes": self.bytes,
            "macs_per_byte": round(self.macs_per_byte, 4),
            "gmacs_per_s": round(self.gmacs_per_s, 4),
            "gbytes_per_s": round(self.gbytes_per_s, 4),
            "of_best_percent": None if self.of_best_percent is None else round(self.of_best_percent, 2),
            "bound": self.bound,
        }


@dataclass(frozen=True, kw_only=True)
class Hotspots:
    """Where the time of one query goes.

    Attributes:
        where: the device, in words.
        session: how ONNX Runtime was opened.
        queries: that were profiled.
        query_us: microseconds of a whole query, with what profiling costs.
        spots: the slowest first.
        best_gmacs_per_s: the most that a layer of at least 10 µs reached; 0 for none.
        best_gbytes_per_s: likewise.
        not_found: layers of the file that stand in no row: the runtime computed them when it opened the file, or gave them
            names that do not lead back.
    """

    where: str
    session: Mapping[str, Any]
    queries: int
    query_us: float
    spots: tuple[Spot, ...]
    best_gmacs_per_s: float
    best_gbytes_per_s: float
    not_found: tuple[str, ...]

    @property
    def nodes_us(self) -> float:
        """Microseconds of all nodes; the rest of a query is spent between them."""
        return sum(spot.microseconds for spot in self.spots)

    def by_operator(self) -> list[dict[str, Any]]:
        """Return the time of each operator as the runtime calls it, the slowest first; `QLinearConv` → 62 % in 30 rows."""
        groups: dict[str, list[Spot]] = defaultdict(list)
        for spot in self.spots:
            groups[" + ".join(spot.runs_as)].append(spot)
        rows = [
            {
                "operator": name,
                "rows": len(some),
                "microseconds": round(sum(spot.microseconds for spot in some), 3),
                "share_percent": round(sum(spot.share_percent for spot in some), 3),
                "macs": sum(spot.macs for spot in some),
                "bytes": sum(spot.bytes for spot in some),
            }
            for name, some in groups.items()
        ]
        return sorted(rows, key=lambda row: -row["microseconds"])

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "where": self.where,
            "session": dict(self.session),
            "queries": self.queries,
            "query_us": self.query_us,
            "nodes_us": round(self.nodes_us, 3),
            "macs": sum(spot.macs for spot in self.spots),
            "bytes": sum(spot.bytes for spot in self.spots),
            "best_gmacs_per_s": round(self.best_gmacs_per_s, 4),
            "best_gbytes_per_s": round(self.best_gbytes_per_s, 4),
            "layers": [spot.to_json() for spot in self.spots],
            "operators": self.by_operator(),
            "not_found": list(self.not_found),
        }


def hotspots(side: Side, address: str, progress: Progress, *, quick: bool = False) -> Hotspots:
    """Have a device profile a model, and bring what it says back to the model's layers.

    Args:
        side: the model.
        address: of the device.
        progress: told what goes on.
        quick: few queries.

    Raises:
        TargetError: the device cannot be reached, or lacks what the model needs.
        UsageError: the model runs on another provider than the CPU's.
        ArtefactError: what came back is not what a runner writes.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="edgetune-hotspots-") as scratch:
        device = meet(side, address, Path(scratch), progress)
        plan = OperatorsRequest(model=side.name, **(QUICK if quick else {}))
        raw, folder = device.measured(request_for(device, side, operators=plan))
        optimised = onnx.load(folder / f"optimised-{side.name}.onnx")
        return joined(device, side, raw["operators"], onnx.load(side.path), optimised)


def joined(
    device: Device, side: Side, profile: Mapping[str, Any], source: onnx.ModelProto, optimised: onnx.ModelProto
) -> Hotspots:
    """Return the profile of an optimised graph, brought back to the layers of the file.

    Args:
        device: that measured.
        side: the model.
        profile: as `edgetune.device.operators` writes it.
        source: the model in the file.
        optimised: what the runtime made of it.

    Raises:
        ArtefactError: the profile is not one of that graph.
    """
    from edgetune.macs import layer_macs

    timed = profile["nodes"]
    if [node["operator"] for node in timed] != [node.op_type for node in optimised.graph.node]:
        raise ArtefactError(
            f"the device timed {len(timed)} nodes that are not the {len(optimised.graph.node)} of the graph that it sent"
        )
    macs = layer_macs(source)
    costs = _bytes_of_nodes(optimised, timed, side)
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    origins = Origins(source, optimised)
    for place, node in enumerate(optimised.graph.node):
        origin = None if node.op_type in CONVERSIONS | LAYOUT_OPERATORS else origins.of(node)
        found = (node.name or timed[place]["name"], node.op_type, "")
        if origin is not None:
            found = (origin.name or origin.output[0], origin.op_type, origin.output[0])
        groups[found].append(place)
    spots = [
        Spot(
            layer=name,
            operator=operator,
            runs_as=tuple(dict.fromkeys(timed[place]["operator"] for place in places)),
            microseconds=sum(timed[place]["microseconds"] for place in places),
            macs=macs.get(output) or 0,
            bytes=sum(costs[place] for place in places),
        )
        for (name, operator, output), places in groups.items()
    ]
    seen = {output for _, _, output in groups}
    lost = [node.name or node.output[0] for node in source.graph.node if node.output[0] in macs.keys() - seen]
    best, ranked = _ranked(spots)
    return Hotspots(
        where=device.where,
        session=device.session(side),
        queries=profile["queries"],
        query_us=profile["query_us"],
        spots=ranked,
        best_gmacs_per_s=best[0],
        best_gbytes_per_s=best[1],
        not_found=tuple(lost),
    )


def _bytes_of_nodes(optimised: onnx.ModelProto, timed: Sequence[Mapping[str, Any]], side: Side) -> list[int]:
    """Return the bytes of the tensors that each node reads and writes; a tensor that it reads twice counts once."""
    from onnx import TensorProto

    sizes: dict[str, int] = {}
    for tensor in optimised.graph.initializer:
        sizes[tensor.name] = _size(TensorProto.DataType.Name(tensor.data_type).lower(), tensor.dims)
    for value in optimised.graph.input:
        shape = [1, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])]
        sizes[value.name] = _size(TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(), shape)
    for node, facts in zip(optimised.graph.node, timed, strict=True):
        written = [name for name in node.output if name]
        sizes |= {name: _size(kind, shape) for name, (kind, shape) in zip(written, facts["outputs"], strict=False)}
    tensors = [{name for name in (*node.input, *node.output) if name} for node in optimised.graph.node]
    return [sum(sizes.get(name, 0) for name in names) for names in tensors]


def _size(kind: str, shape: Sequence[int]) -> int:
    return BYTES.get(kind, OTHERS) * prod(shape)


def _ranked(spots: Sequence[Spot]) -> tuple[tuple[float, float], tuple[Spot, ...]]:
    """Return the best rates of a run, and its layers with their place below the roofline, the slowest first."""
    total = sum(spot.microseconds for spot in spots)
    long = [spot for spot in spots if spot.microseconds >= SHORTEST_US]
    arithmetic = max((spot.gmacs_per_s for spot in long), default=0.0)
    memory = max((spot.gbytes_per_s for spot in long), default=0.0)
    ranked = []
    for spot in sorted(spots, key=lambda spot: -spot.microseconds):
        share = 100 * spot.microseconds / total if total else 0.0
        # Without arithmetic there is only memory to be bound by.
        roof = min(arithmetic, spot.macs_per_byte * memory)
        of_best, bound = None, ""
        if roof:
            of_best, bound = 100 * spot.gmacs_per_s / roof, "arithmetic" if roof == arithmetic else "memory"
        elif memory:
            of_best, bound = 100 * spot.gbytes_per_s / memory, "memory"
        ranked.append(replace(spot, share_percent=share, of_best_percent=of_best, bound=bound))
    return (arithmetic, memory), tuple(ranked)
