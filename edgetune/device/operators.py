"""Where the time of one inference goes: ONNX Runtime's own profile of a model, operator by operator, from a fresh process.

What is written, as `operators` of `measurement.json`::

    {"model": NAME, "queries": N, "query_us": t,    microseconds of a whole query, profiling included
     "nodes": [{"operator": "QLinearConv", "name": "conv_3_token_18", "microseconds": t,
                "outputs": [["uint8", [1, 24, 24, 32]], …]}, …]}

`nodes` are those of the optimised graph in the order in which they run, which is also their order in `optimised-NAME.onnx`: the
model that ONNX Runtime made of the file with these session options on this machine. It lies beside `measurement.json`, and the
host, which can read it, brings its nodes back to the layers of the file. Times are means of the middle half of all queries: as
robust as a median, and finer than the whole microseconds in which ONNX Runtime counts.

The CPU provider alone: what another one compiles is one node, and cannot be written to a file.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .exitcodes import ExitCode, RunnerError
from .footprint import run_child
from .latency import no_garbage_collection
from .pairs import query_images
from .session import open_session

EVENT = "_kernel_time"
"""What ONNX Runtime puts behind a node's name for the time that its kernel took."""
CPU = "CPUExecutionProvider"
FEWEST = 5


@dataclass(frozen=True)
class OperatorsPlan:
    """How much to profile.

    Attributes:
        model: its name.
        warmup: queries that do not count.
        queries: that do.
        max_seconds: no query begins later than this, except for the first five that count.
    """

    model: str
    warmup: int = 10
    queries: int = 50
    max_seconds: float = 60.0


def measure_operators(
    plan: OperatorsPlan, model_path: Path, options: Mapping[str, Any], images: Path | None, optimised: Path
) -> dict[str, Any]:
    """Return where the time of a model goes; the layout is this module's docstring.

    Args:
        plan: how much.
        model_path: the ONNX file.
        options: for `open_session`; nodes run one after another, whatever they say.
        images: for the queries, as `pairs.query_images` takes them.
        optimised: receives the optimised model.

    Raises:
        RunnerError: USAGE: the provider is not the CPU's. TARGET: the process died by a signal or hung. Else what it ran into.
    """
    provider = {"providers": [CPU], **options}["providers"][0]
    if provider != CPU:
        raise RunnerError(f"operators: got provider {provider}, expected {CPU}: others compile what they run", ExitCode.USAGE)
    alone = {**options, "execution_mode": "sequential"}
    told = json.dumps([alone, str(images or ""), asdict(plan)])
    return {"model": plan.model, **run_child(model_path, ["_operators", str(model_path), told, str(optimised)])}


def operators_here(
    model_path: Path, options: Mapping[str, Any], images: Path | None, plan: OperatorsPlan, optimised: Path
) -> dict[str, Any]:
    """Profile a model in this process; `measure_operators` calls it in a fresh one.

    Raises:
        RunnerError: as `open_session`.
    """
    with tempfile.TemporaryDirectory() as folder:

        def profiled(settings: Any) -> None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder) / "profile")
            settings.optimized_model_filepath = str(optimised)

        session = open_session(model_path, options, profiled)
        pictures = query_images(session, images)
        taken: list[int] = []
        end = time.monotonic() + plan.max_seconds
        with no_garbage_collection():
            while len(taken) < plan.warmup + plan.queries:
                if len(taken) >= plan.warmup + FEWEST and time.monotonic() > end:
                    break
                row = len(taken) % len(pictures)
                begin = time.perf_counter_ns()
                session.run(["logits"], {"image": pictures[row : row + 1]})
                taken.append(time.perf_counter_ns() - begin)
        runs = list(_runs(Path(session.end_profiling()), len(taken)))
    counted = runs[plan.warmup :]
    nodes = [_node([run[place] for run in counted]) for place in range(len(counted[0]))]
    whole = middle([nanoseconds / 1e3 for nanoseconds in taken[plan.warmup :]])
    return {"queries": len(counted), "query_us": round(whole, 2), "nodes": nodes}


def _runs(profile: Path, runs: int) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the events of the nodes, query by query.

    Raises:
        RunnerError: UNFORESEEN: the queries did not run the same number of nodes each.
    """
    events = list(kernel_events(profile))
    each, rest = divmod(len(events), runs)
    if rest or not each:
        raise RunnerError(f"operators: {len(events)} nodes ran in {runs} queries", ExitCode.UNFORESEEN)
    for start in range(0, len(events), each):
        yield events[start : start + each]


def kernel_events(profile: Path) -> Iterator[Mapping[str, Any]]:
    """Yield what ONNX Runtime's profile says of each node that ran, in order.

    Returns:
        `name` (the node's), `operator`, `microseconds` and `outputs` (a list of a type and a shape each).
    """
    # It has a line for each event; as a whole it may be larger than a small board's memory.
    with profile.open(encoding="utf-8") as file:
        for line in file:
            if EVENT not in line:
                continue
            event = json.loads(line.strip().rstrip(","))
            if event["cat"] == "Node" and event["name"].endswith(EVENT):
                facts = event["args"]
                outputs = [[kind, shape] for output in facts["output_type_shape"] for kind, shape in output.items()]
                name = event["name"][: -len(EVENT)]
                yield {"name": name, "operator": facts["op_name"], "microseconds": event["dur"], "outputs": outputs}


def _node(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {**runs[0], "microseconds": round(middle([run["microseconds"] for run in runs]), 3)}


def middle(times: Sequence[float]) -> float:
    """Return the mean of the middle half of times."""
    quarter = len(times) // 4
    kept = sorted(times)[quarter : len(times) - quarter]
    return sum(kept) / len(kept)
