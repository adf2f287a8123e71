"""What the runner's way of timing costs: its p50 against a bare loop around `session.run` in the same process.

    OPENBLAS_NUM_THREADS=1 taskset -c 1 python tools/bench_runner_overhead.py model.onnx     # or a bundle's model.onnx

Both time the same session, block by block in turns (ABBA), so that a busy machine treats them alike. Two questions: is the
runner's p50 within 3 % of the loop's, and how far apart are the p50 of five repeats? The second depends on how quiet the
machine is: on a shared one, a neighbour on the same core makes everything slower by a third for milliseconds or minutes. So
each block stands between two probes, a small matrix product that knows nothing of the model; where both took at most 5 % longer
than the fastest percentile of all probes, the machine was quiet. The figures are given for all blocks and for the quiet ones.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.device.latency import measure_block, no_garbage_collection
from edgetune.device.session import image_shape, open_session

WARMUP = 200
QUERIES = 4
"""Of a block: short, as a neighbour comes and goes within milliseconds."""
QUIET = 1.05
FEWEST = 100
"""Quiet queries that a median of a repeat needs."""
WAYS = ("runner", "bare loop")


@dataclass
class Block:
    """A few queries, timed in one way; times in ms, the probe's in seconds: the slower of those before and after."""

    way: str
    probe: float
    samples: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each repeat")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    session = open_session(asked.model, {"intra_op_threads": asked.threads})
    images = np.random.default_rng(0).integers(0, 256, (16, *image_shape(session)), dtype=np.uint8)
    bare_block(session, images, WARMUP)
    repeats = [repeat(session, images, asked.seconds) for _ in range(asked.repeats)]
    fastest = float(np.percentile([block.probe for blocks in repeats for block in blocks], 1))
    tell("all blocks", repeats)
    quiet = [[block for block in blocks if block.probe <= QUIET * fastest] for blocks in repeats]
    tell(f"blocks between two quiet probes (at most {QUIET:g} times {fastest * 1e6:.0f} µs)", quiet)


def tell(title: str, repeats: Sequence[Sequence[Block]]) -> None:
    """Print the p50 of each repeat in both ways, and how far they are apart."""
    print(title)
    found = []
    for number, blocks in enumerate(repeats, start=1):
        samples = [[one for block in blocks if block.way == way for one in block.samples] for way in WAYS]
        if min(map(len, samples)) < FEWEST:
            print(f"  repeat {number}: {min(map(len, samples))} queries, fewer than {FEWEST}: left out")
            continue
        found.append([statistics.median(one) for one in samples])
        (mine, bare), counts = found[-1], " and ".join(str(len(one)) for one in samples)
        print(f"  repeat {number}: p50 {mine:.4f} ms, bare loop {bare:.4f} ms, ratio {mine / bare:.4f} ({counts} queries)")
    if len(found) < 2:
        print("  too few repeats to compare")
        return
    print(f"  median ratio {statistics.median(mine / bare for mine, bare in found):.4f} (to be within 0.97 and 1.03)")
    for way, values in zip(WAYS, zip(*found, strict=True), strict=True):
        spread = (max(values) - min(values)) / statistics.median(values) * 100
        print(f"  {way}: spread of p50 over {len(values)} repeats {spread:.2f} % (largest less smallest, over the median)")


def repeat(session: Any, images: npt.NDArray[np.uint8], seconds: float) -> list[Block]:
    """Return what was timed in so many seconds, in blocks that take turns."""
    probe = new_probe()
    ways: dict[str, Callable[[int], list[float]]] = {
        "runner": lambda start: [taken / 1e6 for taken in measure_block(session, images, start, QUERIES)],
        "bare loop": lambda _start: bare_block(session, images, QUERIES),
    }
    found: list[Block] = []
    with no_garbage_collection():
        end, before = time.perf_counter() + seconds, probe()
        while time.perf_counter() < end:
            for way in (*WAYS, *reversed(WAYS)):
                samples = ways[way](len(found) * QUERIES)
                after = probe()
                found.append(Block(way, max(before, after), samples))
                before = after
    return found


def new_probe() -> Callable[[], float]:
    """Return what takes the same fraction of a millisecond whenever the machine is quiet: it says how many seconds."""
    left = np.random.default_rng(0).random((96, 96), dtype=np.float32)
    right, product = left.copy(), np.empty_like(left)

    def probe() -> float:
        begin = time.perf_counter()
        for _ in range(20):
            np.matmul(left, right, out=product)
        return time.perf_counter() - begin

    return probe


def bare_block(session: Any, images: npt.NDArray[np.uint8], queries: int) -> list[float]:
    """Return the times in ms of a loop that does nothing but run the session."""
    feed = {"image": images[:1].copy()}
    taken = []
    for _ in range(queries):
        begin = time.perf_counter()
        session.run(["logits"], feed)
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


if __name__ == "__main__":
    main()
