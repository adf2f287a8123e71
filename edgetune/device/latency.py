"""Batch-1 latency: models take turns in rounds, warm-ups stand apart, every sample is kept."""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class LatencyPlan:
    """How much to measure.

    Attributes:
        warmup: queries of each model before the first round; not counted.
        rounds: how often the models take turns.
        queries_per_round: queries of each model in a round.
    """

    warmup: int = 20
    rounds: int = 16
    queries_per_round: int = 64


def measure_latency(sessions: Mapping[str, Any], images: npt.NDArray[np.uint8], plan: LatencyPlan) -> dict[str, dict[str, Any]]:
    """Return the latency of each model at batch 1, measured in turns.

    In each round every model answers one block of queries; the order of the models is reversed in every other round (ABBA), so
    that a machine that slowly gets hotter treats them alike. Only `session.run` is timed: the image lies ready. Python's
    garbage collector rests meanwhile.

    Args:
        sessions: open sessions by name.
        images: uint8 `[N, H, W, K]`, N at least 1; they are cycled, and in one round all models see the same ones.
        plan: how much to measure.

    Returns:
        By name: `p50_ms`, `p90_ms`, `p99_ms` (nearest rank over all samples), `mean_ms`, `queries`, `warmup`, `samples_ms` (a
        list per round, rounded to microseconds), `round_medians_ms`, `spread_percent` (the interquartile range of the round
        medians over their median).
    """
    names = list(sessions)
    samples: dict[str, list[list[int]]] = {name: [] for name in names}
    with no_garbage_collection():
        for name in names:
            measure_block(sessions[name], images, 0, plan.warmup)
        for number in range(plan.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                start = number * plan.queries_per_round
                samples[name].append(measure_block(sessions[name], images, start, plan.queries_per_round))
    return {name: {**summary(rounds), "warmup": plan.warmup} for name, rounds in samples.items()}


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Let Python's garbage collector rest meanwhile."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def measure_block(session: Any, images: npt.NDArray[np.uint8], start: int, queries: int) -> list[int]:
    """Return the nanoseconds of each query."""
    import numpy as np

    outputs, clock, run = ["logits"], time.perf_counter_ns, session.run
    taken = []
    for query in range(start, start + queries):
        index = query % len(images)
        # A copy: the page of a memory-mapped image must not be fetched from disk while the clock runs.
        feed = {"image": np.array(images[index : index + 1])}
        begin = clock()
        run(outputs, feed)
        taken.append(clock() - begin)
    return taken


def summary(rounds_ns: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the figures of one model from its samples.

    Args:
        rounds_ns: nanoseconds of each query, a list per round; no round is empty.
    """
    flat = sorted(sample for block in rounds_ns for sample in block)
    medians = [statistics.median(block) / 1e6 for block in rounds_ns]
    return {
        **{f"p{percent}_ms": round(nearest_rank(flat, percent) / 1e6, 6) for percent in (50, 90, 99)},
        "mean_ms": round(sum(flat) / len(flat) / 1e6, 6),
        "queries": len(flat),
        "samples_ms": [[round(sample / 1e6, 3) for sample in block] for block in rounds_ns],
        "round_medians_ms": [round(median, 6) for median in medians],
        "spread_percent": round(_spread_percent(medians), 3),
    }


def nearest_rank(ordered: Sequence[int], percent: int) -> int:
    """Return the smallest sample that at least `percent` of all samples do not exceed; it is always one of them.

    Args:
        ordered: the samples, ascending, at least one.
        percent: from 1 to 100.
    """
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def _spread_percent(medians: Sequence[float]) -> float:
    if len(medians) < 2:
        return 0.0
    lower, middle, upper = statistics.quantiles(medians, n=4, method="inclusive")
    return (upper - lower) / middle * 100 if middle else 0.0
