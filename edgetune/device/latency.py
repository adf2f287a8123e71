"""Batch-1 latency: models take turns in rounds, warm-ups stand apart, every sample is kept.

MLPerf's single stream asks for 1,024 queries *and* a minimal duration of 60 s or more, which a build that measures two models
cannot wait for where an inference takes a fifth of a millisecond. So: 1,024 queries of each model, or as many as fit into 60 s
of it, never fewer than the 64 that say anything about p90. Both at once on request (`min_seconds`); less is called quick.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .percentiles import PERCENTS, early_stopping, nearest_rank

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


MIN_QUERIES = 1024
"""MLPerf's, for a single stream."""
FEWEST = 64
"""The least number of queries that says anything about p90; see `percentiles`."""
WARMUP_SECONDS = 5.0


@dataclass(frozen=True)
class LatencyPlan:
    """How much to measure.

    Attributes:
        warmup: queries of each model before the first round, or as many as fit into 5 s; not counted.
        rounds: how often the models take turns.
        queries_per_round: queries of each model in a round.
        max_seconds: where the warm-up says that a model would need longer than this, rounds get shorter for all.
        min_seconds: rounds are added until every model has been timed for so long, rests included.
        period_seconds: a query begins so long after the one before it, as in a device that sleeps meanwhile: its caches are
            cold then and its clock is low. 0: at once. Where a query takes longer than that, the next one follows at once.
    """

    warmup: int = 20
    rounds: int = 16
    queries_per_round: int = 64
    max_seconds: float = 60.0
    min_seconds: float = 0.0
    period_seconds: float = 0.0

    @property
    def quick(self) -> bool:
        """Whether fewer queries are asked for than MLPerf counts as a measurement."""
        return self.rounds * self.queries_per_round < MIN_QUERIES


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
        By name: `p50_ms`, `p90_ms`, `p99_ms` (nearest rank over all samples), `early_stopping` (see `percentiles`), `mean_ms`,
        `queries`, `seconds` (their sum), `quick` (fewer queries were asked for than make a measurement), `cut_short` (rounds
        were made shorter to end in time), `period_ms` (0: one query after another), `warmup` (queries), `samples_ms` (a list
        per round, rounded to microseconds), `round_medians_ms`, `spread_percent` (the interquartile range of the round medians
        over their median).
    """
    names = list(sessions)
    samples: dict[str, list[list[int]]] = {name: [] for name in names}
    with no_garbage_collection():
        warm = {name: _warm_up(sessions[name], images, plan) for name in names}
        per_round = _fitting(plan, max((statistics.median(taken) for taken in warm.values() if taken), default=0.0))
        number = 0
        while number < plan.rounds or _shortest_s(samples, plan.period_seconds) < plan.min_seconds:
            for name in names if number % 2 == 0 else reversed(names):
                samples[name].append(measure_block(sessions[name], images, number * per_round, per_round, plan.period_seconds))
            number += 1
    facts = {"quick": plan.quick, "cut_short": per_round < plan.queries_per_round, "period_ms": plan.period_seconds * 1e3}
    return {name: {**summary(rounds), **facts, "warmup": len(warm[name])} for name, rounds in samples.items()}


def _warm_up(session: Any, images: npt.NDArray[np.uint8], plan: LatencyPlan) -> list[int]:
    """Return the nanoseconds of the queries before the first round."""
    taken: list[int] = []
    while len(taken) < plan.warmup and sum(taken) < WARMUP_SECONDS * 1e9:
        taken += measure_block(session, images, len(taken), 1)
    return taken


def _fitting(plan: LatencyPlan, query_ns: float) -> int:
    """Return the queries of a round with which a model that takes so long ends in time."""
    lasts_ns = max(query_ns, plan.period_seconds * 1e9)
    if not lasts_ns:
        return plan.queries_per_round
    in_time = int(plan.max_seconds * 1e9 / (plan.rounds * lasts_ns))
    return min(plan.queries_per_round, max(in_time, math.ceil(FEWEST / plan.rounds)))


def _shortest_s(samples: Mapping[str, Sequence[Sequence[int]]], period: float) -> float:
    """Return for how long the model was timed that was timed the least; the rest between paced queries counts."""
    return min(sum(max(taken / 1e9, period) for block in rounds for taken in block) for rounds in samples.values())


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


def measure_block(session: Any, images: npt.NDArray[np.uint8], start: int, queries: int, period: float = 0.0) -> list[int]:
    """Return the nanoseconds of each query."""
    import numpy as np

    outputs, clock, run = ["logits"], time.perf_counter_ns, session.run
    taken = []
    due = time.monotonic() + period
    for query in range(start, start + queries):
        index = query % len(images)
        # A copy: the page of a memory-mapped image must not be fetched from disk while the clock runs.
        feed = {"image": np.array(images[index : index + 1])}
        if period:
            time.sleep(max(0.0, due - time.monotonic()))
            due = time.monotonic() + period
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
        **{f"p{percent}_ms": round(nearest_rank(flat, percent) / 1e6, 6) for percent in PERCENTS},
        "early_stopping": early_stopping(flat),
        "mean_ms": round(sum(flat) / len(flat) / 1e6, 6),
        "queries": len(flat),
        "seconds": round(sum(flat) / 1e9, 3),
        "samples_ms": [[round(sample / 1e6, 3) for sample in block] for block in rounds_ns],
        "round_medians_ms": [round(median, 6) for median in medians],
        "spread_percent": round(_spread_percent(medians), 3),
    }


def _spread_percent(medians: Sequence[float]) -> float:
    if len(medians) < 2:
        return 0.0
    lower, middle, upper = statistics.quantiles(medians, n=4, method="inclusive")
    return (upper - lower) / middle * 100 if middle else 0.0
