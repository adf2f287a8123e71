"""One model under several session options, each in pairs of fresh processes against the present ones.

What is written, as `trials` of `measurement.json`::

    {"model": NAME, "rounds": [[PAIR, …], …]}    a round has a pair for each candidate, in the order of the request

PAIR is `{"sides": [SIDE, SIDE]}` as `pairs` writes it: the present options, then the candidate's. Rounds go through all
candidates before one of them is tried again, every other round backwards, so that what changes on the machine meanwhile hits
all alike; and only two processes live at a time, so that a small board has the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .pairs import PairsPlan, measure_pair


@dataclass(frozen=True)
class TrialsPlan:
    """How much to try.

    Attributes:
        model: its name.
        present: the options that the others are held against.
        candidates: the others.
        rounds: how often each is tried.
        first: the number of the first round: trials that are continued go on with who is first.
        warmup: queries of each process that do not count.
        blocks: how often the two of a pair take turns.
        queries_per_block: of each process in a block.
        period_seconds: a query begins so long after the one before it; see `latency.LatencyPlan`.
    """

    model: str
    present: dict[str, Any]
    candidates: tuple[dict[str, Any], ...]
    rounds: int = 3
    first: int = 0
    warmup: int = 20
    blocks: int = 16
    queries_per_block: int = 16
    period_seconds: float = 0.0


def measure_trials(plan: TrialsPlan, model_path: Path, images: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what a model costs under each of several options; the layout is this module's docstring.

    Args:
        plan: how much.
        model_path: the ONNX file.
        images: for the queries, as `pairs.query_images` takes them.
        say: told, in one line, what happens next.

    Raises:
        RunnerError: TARGET: a process died by a signal or hung. Else what it ran into, with its exit code.
    """
    rounds = []
    for number in range(plan.first, plan.first + plan.rounds):
        places = list(range(len(plan.candidates)))
        found: dict[int, list[dict[str, Any]]] = {}
        for place in places if number % 2 == 0 else reversed(places):
            say(f"round {number + 1} of {plan.first + plan.rounds}, candidate {place + 1} of {len(places)}")
            pair = PairsPlan(
                models=(plan.model, plan.model),
                sessions=(plan.present, plan.candidates[place]),
                warmup=plan.warmup,
                blocks=plan.blocks,
                queries_per_block=plan.queries_per_block,
                period_seconds=plan.period_seconds,
            )
            found[place] = measure_pair(pair, {plan.model: model_path}, images, number)
        rounds.append([{"sides": found[place]} for place in places])
    return {"model": plan.model, "rounds": rounds}
