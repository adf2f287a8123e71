"""Two models against each other in pairs of fresh processes: latency, cold start and memory.

Two processes that run the same model differ by a few percent, because their memory lies elsewhere; so the unit of a comparison
is a process, not a query. Each pair is one new process per model. The two stand side by side and take turns in short blocks
of queries, so that other work on the machine hits both alike; who is first changes from pair to pair and from block to block
(ABBA).

What is written, as `pairs` of `measurement.json`::

    {"models": [NAME, NAME],
     "pairs": [{"sides": [SIDE, SIDE]}, …]}    in the order of `models`, whoever was first

SIDE is `cold_start_ms`, `first_inference_ms` and `peak_memory_bytes` as `footprint.footprint_here` gives them, and of the
queries `median_ms`, `p90_ms`, `queries` and `block_medians_ms`.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .exitcodes import ExitCode, RunnerError
from .footprint import DEADLINE_S, child_fault, footprint_here, own_command, own_environment
from .latency import measure_block, no_garbage_collection
from .percentiles import nearest_rank
from .session import image_shape, open_session

PICTURES = 8
"""Images of noise that queries cycle through where no others are given."""
AGAIN = 2
"""Queries before each block that do not count: the other process has just used the caches."""


@dataclass(frozen=True)
class PairsPlan:
    """How much to compare.

    Attributes:
        models: the names of the two; the same name twice compares a model with itself.
        sessions: options for `open_session`, one table for each of the two.
        pairs: how many.
        first: the number of the first pair: a comparison that is continued goes on with who is first.
        warmup: queries of each process that do not count.
        blocks: how often the two take turns.
        queries_per_block: of each process in a block.
        period_seconds: a query begins so long after the one before it; see `latency.LatencyPlan`.
    """

    models: tuple[str, str]
    sessions: tuple[dict[str, Any], dict[str, Any]]
    pairs: int = 10
    first: int = 0
    warmup: int = 20
    blocks: int = 16
    queries_per_block: int = 16
    period_seconds: float = 0.0


def measure_pairs(
    plan: PairsPlan, paths: Mapping[str, Path], images: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return what two models cost, pair by pair; the layout is this module's docstring.

    Args:
        plan: how much.
        paths: the ONNX files, by the models' names.
        images: an .npy file for the queries, uint8 `[N, H, W, K]`; a model that it does not fit, or any for None, gets noise.
        say: told, in one line, what happens next.

    Raises:
        RunnerError: TARGET: a process died by a signal or hung. Else what it ran into, with its exit code.
    """
    pairs = []
    for number in range(plan.first, plan.first + plan.pairs):
        say(f"pair {number + 1} of {plan.first + plan.pairs}: {plan.models[0]}, {plan.models[1]}")
        pairs.append({"sides": measure_pair(plan, paths, images, number)})
    return {"models": list(plan.models), "pairs": pairs}


def measure_pair(plan: PairsPlan, paths: Mapping[str, Path], images: Path | None, number: int) -> list[dict[str, Any]]:
    """Return what the processes of one pair measured, in the order of the plan's models."""
    sides = []
    try:
        # Both start before either works: imports may overlap, measurements may not.
        for name, session in zip(plan.models, plan.sessions):
            sides.append(_Side(paths[name], session, images))
        for side in sides:
            side.ask({"do": "ready"})
        turn = sides if number % 2 == 0 else sides[::-1]
        opened = {id(side): side.ask({"do": "open"}) for side in turn}
        for side in turn:
            side.ask({"do": "run", "start": 0, "queries": max(plan.warmup, 1)})
        blocks: dict[int, list[list[int]]] = {id(side): [] for side in sides}
        for block in range(plan.blocks):
            for side in turn if block % 2 == 0 else turn[::-1]:
                order = {
                    "do": "run",
                    "start": block * plan.queries_per_block - AGAIN,
                    "queries": plan.queries_per_block + AGAIN,
                    "period": plan.period_seconds,
                }
                blocks[id(side)].append(side.ask(order)[AGAIN:])
        return [{**opened[id(side)], **_figures(blocks[id(side)])} for side in sides]
    finally:
        for side in sides:
            side.end()


def _figures(blocks_ns: list[list[int]]) -> dict[str, Any]:
    flat = sorted(sample for block in blocks_ns for sample in block)
    return {
        "median_ms": round(statistics.median(flat) / 1e6, 6),
        "p90_ms": round(nearest_rank(flat, 90) / 1e6, 6),
        "queries": len(flat),
        "block_medians_ms": [round(statistics.median(block) / 1e6, 6) for block in blocks_ns],
    }


class _Side:
    """A fresh process with one model, which does as it is asked."""

    def __init__(self, model_path: Path, session: Mapping[str, Any], images: Path | None) -> None:
        self._path = model_path
        self._hung = False
        # A file instead of a pipe: what ONNX Runtime says can never block the child.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        arguments = [*own_command(), "_turns", str(model_path), json.dumps(dict(session)), str(images or "")]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=own_environment()
        )
        self._orders: Any = self._process.stdin
        self._answers: Any = self._process.stdout

    def ask(self, order: Mapping[str, Any]) -> Any:
        """Return the answer to an order.

        Raises:
            RunnerError: the process ended instead, or did not answer in time.
        """
        watch = threading.Timer(DEADLINE_S, self._give_up)
        watch.start()
        try:
            self._orders.write((json.dumps(order) + "\n").encode("utf-8"))
            self._orders.flush()
            answer = self._answers.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            watch.cancel()
        if answer:
            return json.loads(answer.decode("utf-8"))
        code = self._process.wait()
        if self._hung:
            raise RunnerError(f"{self._path}: its process did not answer within {DEADLINE_S:g} s", ExitCode.TARGET)
        self._errors.seek(0)
        raise child_fault(self._path, code, self._errors.read())

    def _give_up(self) -> None:
        self._hung = True
        self._process.kill()

    def end(self) -> None:
        """Leave no process and no open file behind."""
        for stream in (self._orders, self._answers):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def turns_here(
    model_path: Path, options: Mapping[str, Any], images: Path | None, orders: Iterable[str], answer: Callable[[Any], None]
) -> None:
    """Do in this process what `measure_pairs` asks of a side, until there are no more orders.

    Args:
        model_path: the ONNX file.
        options: for `open_session`.
        images: for the queries; None for noise.
        orders: lines of JSON.
        answer: called once for each of them.

    Raises:
        RunnerError: as `open_session`.
    """
    import numpy  # noqa: F401 - imports are not the model's cost
    import onnxruntime  # noqa: F401

    session: Any = None
    pictures: Any = None
    with no_garbage_collection():
        for line in orders:
            order = json.loads(line)
            if order["do"] == "open":
                cost = footprint_here(model_path, options)
                session = open_session(model_path, options)
                pictures = query_images(session, images)
                answer(cost)
            elif order["do"] == "run":
                answer(measure_block(session, pictures, max(0, order["start"]), order["queries"], order.get("period", 0.0)))
            else:
                answer(None)


def query_images(session: Any, images: Path | None) -> Any:
    """Return images for the queries: those of a file if they fit the model, else noise, always the same."""
    import numpy as np

    shape = image_shape(session)
    if images is not None:
        found = np.load(str(images), mmap_mode="r", allow_pickle=False)
        if found.dtype == np.uint8 and found.shape[1:] == shape and len(found):
            return found
    return np.random.RandomState(0).randint(0, 256, (PICTURES, *shape)).astype(np.uint8)
