"""Where the time of an int8 file goes that an integer graph would not need: ONNX Runtime's profile of it, beside that of fp32.

Both files run in turns in one process. The profile has a time for each node of the optimised graph; nodes are brought back to
those of the files by their names, so that an integer layer stands beside its own time in fp32.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgetune.device.operators import kernel_events, middle
from edgetune.optimised import CONVERSIONS, LAYOUT_OPERATORS, Origins, optimised_model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from edgetune.profile import Runtime

__all__ = ["Blame", "Culprit", "blame"]

RUNS = 50
WARMUP = 10
INTEGER_OPERATORS = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "QAttention")
"""How the names of operators begin that compute in integers whatever they write."""
# A layer counts as slower only by more than the profile's whole microseconds and its noise can feign.
SLOWER_RATIO, SLOWER_US = 1.2, 2.0

Kind = Literal["float", "conversion", "layout", "slower"]
KINDS: dict[Kind, str] = {
    "float": "computes in float",
    "conversion": "converts between integers and float",
    "layout": "changes the layout for its neighbours",
    "slower": "is slower in integers than in float",
}


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """An operator of the file to which time goes that an integer graph would not take.

    Attributes:
        node: its name in the file; what the runtime calls it if it is not there.
        operator: of the file, or the runtime's.
        kind: what an integer graph would not need about it, see `KINDS`.
        int8_us: microseconds of one inference of the int8 file.
        fp32_us: those of the same node in the fp32 file; None where it has none of its own, for one because it is fused there.
        share_percent: of the time of all nodes of the int8 file; of a slower layer only what it takes beyond its time in float.
    """

    node: str
    operator: str
    kind: Kind
    int8_us: float
    fp32_us: float | None
    share_percent: float

    def __str__(self) -> str:
        """Return the culprit for a person: `HardSwish act_1 computes in float: 12.1 % of the time (61 us)`."""
        instead = f", in fp32 {self.fp32_us:.0f} us" if self.fp32_us is not None else ""
        name = f"{self.operator} {self.node}".strip()
        return f"{name} {KINDS[self.kind]}: {self.share_percent:.1f} % of the time ({self.int8_us:.0f} us{instead})"


@dataclass(frozen=True, kw_only=True)
class Blame:
    """The profiles of both files.

    Attributes:
        int8_us: microseconds of all nodes of one inference of the int8 file.
        fp32_us: of the fp32 file.
        culprits: largest share first.
    """

    int8_us: float
    fp32_us: float
    culprits: tuple[Culprit, ...]

    def operators(self) -> dict[str, float]:
        """Return the share of each operator in percent, largest first: `HardSwish computes in float` → 31.0."""
        shares: dict[str, float] = defaultdict(float)
        for culprit in self.culprits:
            shares[f"{culprit.operator} {KINDS[culprit.kind]}"] += culprit.share_percent
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """A node of an optimised graph.

    Attributes:
        origin: the node of the file that it comes from; what the runtime calls it if it comes from none.
        operator: of the origin, or the runtime's.
        runs_as: the runtime's operator.
        made_up: it comes from no node of the file.
        writes: the type of its first output, such as uint8.
        microseconds: of one run.
    """

    origin: str
    operator: str
    runs_as: str
    made_up: bool
    writes: str
    microseconds: float


def blame(
    fp32: Path, int8: Path, runtime: Runtime, images: npt.NDArray[np.uint8], *, runs: int = RUNS, warmup: int = WARMUP
) -> Blame:
    """Return where the time of an int8 file goes, on this machine.

    Args:
        fp32: the file that it was made from.
        int8: the file.
        runtime: the profile's session; the optimisation level and the threads are its.
        images: uint8 `[N, H, W, K]`, N at least 1; they take turns.
        runs: inferences of each file that count.
        warmup: inferences before them that do not.
    """
    nodes8, nodes32 = _profile({"int8": int8, "fp32": fp32}, runtime, images, runs, warmup)
    total = sum(node.microseconds for node in nodes8)
    floats: dict[str, float] = defaultdict(float)
    for node in nodes32:
        floats[node.origin] += node.microseconds
    together: dict[tuple[str, str, Kind], float] = defaultdict(float)
    for node in nodes8:
        if kind := _kind(node, floats.get(node.origin)):
            together[node.origin, node.operator, kind] += node.microseconds
    culprits = []
    for (origin, operator, kind), time in together.items():
        there = floats.get(origin)
        lost = time - there if kind == "slower" and there is not None else time
        share = 100 * lost / total
        culprits.append(Culprit(node=origin, operator=operator, kind=kind, int8_us=time, fp32_us=there, share_percent=share))
    culprits.sort(key=lambda culprit: (-culprit.share_percent, culprit.node))
    return Blame(int8_us=total, fp32_us=sum(floats.values()), culprits=tuple(culprits))


def _kind(node: _Timed, in_fp32: float | None) -> Kind | None:
    """Return what an integer graph would not need about a node; None where there is nothing."""
    if node.runs_as in CONVERSIONS:
        return "conversion"
    if node.made_up and node.runs_as in LAYOUT_OPERATORS:
        return "layout"
    if node.writes == "float" and not node.runs_as.startswith(INTEGER_OPERATORS):
        return "float"
    if in_fp32 is not None and node.microseconds > max(in_fp32 * SLOWER_RATIO, in_fp32 + SLOWER_US):
        return "slower"
    return None


def _profile(
    paths: Mapping[str, Path], runtime: Runtime, images: npt.NDArray[np.uint8], runs: int, warmup: int
) -> list[list[_Timed]]:
    """Return the nodes of each file with their times, the files taking turns."""
    import onnx
    import onnxruntime

    models, sessions, origins = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in paths.items():
            model = optimised_model(path, runtime)
            found = Origins(onnx.load(path), model)
            models.append(model)
            origins.append(_named(model, found))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            # It is optimised already, and has names now by which the profile tells its nodes apart.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = runtime.intra_op_threads
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / name)
            providers = ["CPUExecutionProvider"]
            sessions.append(onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers))
        for number in range(warmup + runs):
            feed = {"image": images[number % len(images)][None]}
            for session in sessions:
                session.run(None, feed)
        events = [list(kernel_events(Path(session.end_profiling()))) for session in sessions]
    return [_timed(some, known, warmup) for some, known in zip(events, origins, strict=True)]


def _named(model: onnx.ModelProto, origins: Origins) -> dict[str, onnx.NodeProto | None]:
    """Give every node of an optimised model a name of its own; return by it the node of the file that it comes from."""
    found = [origins.of(node) for node in model.graph.node]
    for index, node in enumerate(model.graph.node):
        node.name = f"{index}:{node.name or node.op_type}"
    return {node.name: origin for node, origin in zip(model.graph.node, found, strict=True)}


def _timed(events: Sequence[Mapping[str, Any]], origins: Mapping[str, onnx.NodeProto | None], warmup: int) -> list[_Timed]:
    """Return the nodes of a profile, each with its time over the runs behind the warm-up."""
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        by_name[event["name"]].append(event)
    nodes = []
    for name, some in by_name.items():
        facts, origin = some[0], origins.get(name)
        nodes.append(
            _Timed(
                origin=origin.name if origin is not None else name.partition(":")[2],
                # A bias is dequantized under the name of its layer.
                operator=facts["operator"] if origin is None or facts["operator"] in CONVERSIONS else origin.op_type,
                runs_as=facts["operator"],
                made_up=origin is None,
                writes=facts["outputs"][0][0] if facts["outputs"] else "",
                microseconds=middle([event["microseconds"] for event in some[warmup:]]),
            )
        )
    return nodes
