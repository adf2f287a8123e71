"""What the runner's way of timing costs: its p50 against a bare loop around `session.run` in the same process.

    python tools/bench_runner_overhead.py model.onnx                # or a bundle's model.onnx

Both time the same session, block by block in turns (ABBA), so that a busy machine treats them alike. Two questions: is the
runner's p50 within 3 % of the loop's, and how far apart are the p50 of five repeats? The second depends on how quiet the
machine is, so the bare loop's own spread stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.device.latency import LatencyPlan, measure_latency
from edgetune.device.session import image_shape, open_session

WARMUP = 50
BLOCKS = 32
QUERIES = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    session = open_session(asked.model, {"intra_op_threads": asked.threads})
    images = np.random.default_rng(0).integers(0, 256, (16, *image_shape(session)), dtype=np.uint8)
    pairs = [repeat(session, images) for _ in range(asked.repeats)]
    for number, (runner, bare) in enumerate(pairs, start=1):
        print(f"repeat {number}: runner p50 {runner:.4f} ms, bare loop p50 {bare:.4f} ms, ratio {runner / bare:.4f}")
    print(f"median ratio {statistics.median(runner / bare for runner, bare in pairs):.4f} (to be within 0.97 and 1.03)")
    for name, values in zip(("runner", "bare loop"), zip(*pairs, strict=True), strict=True):
        print(
            f"{name}: p50 spread over {len(values)} repeats {spread_percent(values):.2f} % (largest less smallest over median)"
        )


def repeat(session: Any, images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return the p50 in ms of the runner and of the bare loop, from blocks that take turns."""
    runner: list[float] = []
    bare: list[float] = []
    bare_block(session, images, WARMUP)
    for number in range(BLOCKS):
        for mine in (True, False) if number % 2 == 0 else (False, True):
            if mine:
                runner += runner_block(session, images)
            else:
                bare += bare_block(session, images, QUERIES)
    return statistics.median(runner), statistics.median(bare)


def runner_block(session: Any, images: npt.NDArray[np.uint8]) -> list[float]:
    """Return the times in ms of one round, as the runner measures it."""
    found = measure_latency({"model": session}, images, LatencyPlan(warmup=0, rounds=1, queries_per_round=QUERIES))
    return [float(sample) for sample in found["model"]["samples_ms"][0]]


def bare_block(session: Any, images: npt.NDArray[np.uint8], queries: int) -> list[float]:
    """Return the times in ms of a loop that does nothing but run the session."""
    feed = {"image": images[:1].copy()}
    taken = []
    for _ in range(queries):
        begin = time.perf_counter()
        session.run(["logits"], feed)
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


def spread_percent(values: tuple[float, ...]) -> float:
    """Return the largest value less the smallest, over the median, in percent."""
    return (max(values) - min(values)) / statistics.median(values) * 100


if __name__ == "__main__":
    main()
