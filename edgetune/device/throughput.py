"""Images per second of parallel streams at batch 1, and energy per image where the machine tells.

This is MLPerf's Offline scenario as a board's program would live it: all images are there, and n threads of one process take
the next one as soon as they are free. They share one session with one intra-op thread, so that n streams use n cores; more
intra-op threads shorten a single query (see `trials`) but give fewer images per second. Thread counts take turns.

What is written, as `throughput` of a model::

    {"streams": [{"threads": n, "images_per_second": x, "queries": N, "seconds": s, "rounds": [x, …], "spread_percent": p,
                  "energy": null | {SENSOR: {"joules_per_image": j, "watts": w}}}, …],
     "idle_watts": null | {SENSOR: w},      before the first stream, for as long as one of its rounds
     "energy_skipped": ""}                  why there is no energy
"""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .energy import Meter, metered, meters
from .footprint import run_child
from .latency import no_garbage_collection
from .pairs import query_images
from .session import open_session

WARMUP = 10


@dataclass(frozen=True)
class ThroughputPlan:
    """How much to measure.

    Attributes:
        threads: the numbers of streams.
        seconds: of each of them, all rounds together.
        rounds: how often they take turns.
    """

    threads: tuple[int, ...]
    seconds: float = 15.0
    rounds: int = 3


def measure_throughput(
    plan: ThroughputPlan, model_path: Path, options: Mapping[str, Any], images: Path | None
) -> dict[str, Any]:
    """Return the throughput of a model from a fresh process; the layout is this module's docstring.

    Args:
        plan: how much.
        model_path: the ONNX file.
        options: for `open_session`, but for the intra-op threads.
        images: for the queries, as `pairs.query_images` takes them.

    Raises:
        RunnerError: TARGET: the process died by a signal or hung. Else what it ran into, with its exit code.
    """
    told = json.dumps([{**options, "intra_op_threads": 1}, str(images or ""), asdict(plan)])
    deadline_s = 120 + 3 * plan.seconds * (len(plan.threads) + 1)
    return dict(run_child(model_path, ["_throughput", str(model_path), told], deadline_s))


def throughput_here(model_path: Path, options: Mapping[str, Any], images: Path | None, plan: ThroughputPlan) -> dict[str, Any]:
    """Measure in this process; `measure_throughput` calls it in a fresh one.

    Raises:
        RunnerError: as `open_session`.
    """
    import numpy as np

    session = open_session(model_path, options)
    # In memory: a page of a mapped file must not be fetched while the clock runs.
    pictures = np.array(query_images(session, images)[:64])
    found, reason = meters()
    each = plan.seconds / plan.rounds
    idle: dict[str, float] | None = None
    if found:
        with metered(found) as told:
            time.sleep(each)
        idle = {name: joules / told["seconds"] for name, joules in told["joules"].items()}
    rounds: dict[int, list[dict[str, Any]]] = {count: [] for count in plan.threads}
    with no_garbage_collection():
        for _ in range(WARMUP):
            session.run(["logits"], {"image": pictures[:1]})
        for number in range(plan.rounds):
            for count in plan.threads if number % 2 == 0 else plan.threads[::-1]:
                rounds[count].append(_round(session, pictures, count, each, found))
    streams = [_figures(count, rounds[count]) for count in plan.threads]
    return {"streams": streams, "idle_watts": idle, "energy_skipped": reason}


def _round(session: Any, pictures: Any, threads: int, seconds: float, found: list[Meter]) -> dict[str, Any]:
    """Return `queries`, `seconds` and `joules` of some streams that work for so long."""
    tickets, done = itertools.count(), [0] * threads
    faults: list[Exception] = []
    ready = threading.Barrier(threads + 1)

    def stream(place: int) -> None:
        try:
            ready.wait()
            while time.monotonic() < end:
                row = next(tickets) % len(pictures)
                session.run(["logits"], {"image": pictures[row : row + 1]})
                done[place] += 1
        except Exception as fault:
            # A thread's own exception would be printed and forgotten; it is raised again below, where it counts.
            faults.append(fault)

    workers = [threading.Thread(target=stream, args=(place,), daemon=True) for place in range(threads)]
    for worker in workers:
        worker.start()
    with metered(found) as told:
        end = time.monotonic() + seconds
        ready.wait()
        for worker in workers:
            worker.join()
    if faults:
        raise faults[0]
    return {"queries": sum(done), **told}


def _figures(threads: int, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    queries, seconds = sum(one["queries"] for one in rounds), sum(one["seconds"] for one in rounds)
    rates = [one["queries"] / one["seconds"] for one in rounds]
    energy = None
    if rounds[0]["joules"]:
        joules = {name: sum(one["joules"][name] for one in rounds) for name in rounds[0]["joules"]}
        energy = {name: {"joules_per_image": all_of / queries, "watts": all_of / seconds} for name, all_of in joules.items()}
    return {
        "threads": threads,
        "images_per_second": round(queries / seconds, 3),
        "queries": queries,
        "seconds": round(seconds, 3),
        "rounds": [round(rate, 3) for rate in rates],
        "spread_percent": round(100 * (max(rates) - min(rates)) / statistics.median(rates), 2),
        "energy": energy,
    }
