"""How often the gate is wrong, and how often it sees what it must: `edgetune compare`'s verdicts on known truths.

    python tools/bench_gate.py null                         # simulated comparisons where nothing changed; 1 min
    python tools/bench_gate.py accuracy                     # simulated candidates that lost 2 points on 2,000 images; 5 s
    python tools/bench_gate.py damage BUNDLE FP32.onnx    # real: a network whose weights are disturbed until 2 points are lost
    python tools/bench_gate.py slower BUNDLE --runs 40      # real: a candidate with 10 % more to do; 30 s a run
    python tools/bench_gate.py same BUNDLE --runs 20        # real: the baseline against a copy of itself; 30 s a run
    python tools/bench_gate.py controls --pool FILE         # real: what earlier runs found of the baseline against itself

`slower` edits the bundle's real graph: a branch of a convolution is added beside it, its height chosen by measurement so that
the whole takes 10 % longer. Each run is the gate's own: pairs of fresh processes by the runner, the baseline against itself
first. With `--pool FILE` real runs leave their pairs there, and `null` draws the times of its simulated comparisons from them;
without, from heavy-tailed noise of the size that was measured on two busy cores (standard deviation of ln ratio: 2.4 %).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from altered_models import branched, disturbed, right
from edgetune.device.heads import default_heads
from edgetune.files import sha256_file
from edgetune.gate.images import labelled, source_of
from edgetune.gate.judging import cost_rows, model_rows
from edgetune.gate.measuring import Device
from edgetune.gate.sides import Side, read_side
from edgetune.gate.tolerances import Tolerances
from edgetune.progress import Silent
from edgetune.report.compose import overall
from edgetune.verify.pairs import LOOKS, Timed, latency, timed
from edgetune.verify.statistics import paired_drop
from edgetune.verify.targets.local import LocalTarget

ALLOWED = Tolerances()
BASE_MS, COLD_MS, MEMORY = 0.4, 45.0, 21e6
SPREAD, BLOCKS = 0.024, 24
CORRECTIONS, CLOSE = 5, 0.004


def null(arguments: argparse.Namespace) -> None:
    """Simulate whole comparisons in which the candidate is another model that is exactly as good."""
    rng = np.random.default_rng(arguments.seed)
    pool = _pool(arguments.pool)
    verdicts: Counter[str] = Counter()
    by_row: Counter[tuple[str, str]] = Counter()
    for number in range(arguments.comparisons):
        images, classes = int(rng.integers(300, 3000)), 9
        discordance = (0.005, 0.03, 0.08)[number % 3]
        baseline, candidate, targets = _alike(rng, images, classes, discordance)
        rows = list(model_rows(baseline, candidate, targets, default_heads([f"class {i}" for i in range(classes)]), ALLOWED))
        rows += cost_rows(timed(lambda both, first, count: _draw(rng, pool, count), ALLOWED.latency_percent), ALLOWED)
        verdicts[overall(rows)] += 1
        by_row.update((row.name, row.verdict) for row in rows)
    total = sum(verdicts.values())
    print(f"{total} comparisons where nothing changed: {dict(verdicts)}; BROKEN {100 * verdicts['BROKEN'] / total:.1f} %")
    for name in dict.fromkeys(name for name, _ in by_row):
        print(f"  {name:<22} { ({verdict: n for (row, verdict), n in by_row.items() if row == name}) }")


def _alike(rng: np.random.Generator, images: int, classes: int, discordance: float) -> tuple[Any, Any, Any]:
    """Return logits of two models of the same quality: the candidate's noise is another draw for some of the images.

    80 % are right; `discordance` is the share of images that one of the two has right and the other wrong.
    """
    labels = rng.integers(0, classes, images)
    baseline = rng.normal(0, 1, (images, classes)) + 2.7 * np.eye(classes)[labels]
    again = rng.normal(0, 1, (images, classes)) + 2.7 * np.eye(classes)[labels]
    # Two independent draws of which 80 % are right disagree on being right for 2 · 0.8 · 0.2 of the images.
    other = rng.random(images) < discordance / 0.32
    candidate = np.where(other[:, None], again, baseline + rng.normal(0, 1e-3, baseline.shape))
    return baseline.astype(np.float32), candidate.astype(np.float32), labels[:, None].astype(np.float32)


def _pool(path: Path | None) -> list[dict[str, Any]]:
    """Return pairs of a model with itself that real runs left."""
    if path is None or not path.is_file():
        return []
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    return [pair for run in runs for pair in run["control"]]


def _draw(rng: np.random.Generator, pool: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return pairs of a model with itself: drawn from real ones, either side first, or made of noise."""
    if pool:
        drawn = [pool[int(i)] for i in rng.integers(0, len(pool), count)]
        return [{"sides": pair["sides"][:: 1 if rng.random() < 0.5 else -1]} for pair in drawn]
    return [{"sides": [_side(rng, 1.0), _side(rng, float(np.exp(SPREAD * 0.58 * rng.standard_t(3))))]} for _ in range(count)]


def _side(rng: np.random.Generator, factor: float) -> dict[str, Any]:
    medians = BASE_MS * factor * np.exp(0.05 * rng.standard_t(3, BLOCKS))
    cold = COLD_MS * float(np.exp(0.3 * rng.standard_normal()))
    peak = MEMORY + float(rng.integers(0, 4)) * 4096
    return {
        "median_ms": float(np.median(medians)),
        "block_medians_ms": medians.tolist(),
        "cold_start_ms": cold,
        "peak_memory_bytes": peak,
    }


def accuracy(arguments: argparse.Namespace) -> None:
    """Simulate candidates that lose points in truth: how often Tango's test says so, by how much else they change."""
    rng = np.random.default_rng(arguments.seed)
    images, drop = arguments.images, arguments.points / 100
    print(f"{arguments.points:g} points lost in truth, {images} images, {ALLOWED.accuracy_points:g} allowed:")
    for discordance in (drop, 0.024, 0.026, 0.028, 0.03, 0.04, 0.06, 0.08):
        lost, gained = (discordance + drop) / 2, (discordance - drop) / 2
        drawn = rng.multinomial(images, [lost, gained, 1 - lost - gained], arguments.comparisons)
        found = Counter(paired_drop(int(b), int(c), images, ALLOWED.accuracy_points / 100).verdict for b, c, _ in drawn)
        share = 100 * found["BROKEN"] / arguments.comparisons
        print(f"  {100 * discordance:.1f} % of the images discordant: BROKEN {share:.1f} %  {dict(found)}")


def damage(arguments: argparse.Namespace) -> None:
    """Disturb a real network's weights until it lost 2 points, and judge it on 2,000 of its images, drawn 2,000 times."""
    import onnx

    side = read_side(arguments.bundle, "baseline")
    network = onnx.load(arguments.fp32)
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as folder:
        source = source_of(arguments.data, True, side)
        if source is None:
            raise SystemExit("there are no images")
        images = labelled(source, side, Path(folder) / "data", Silent())
        truth = images.targets[:, 0]
        pixels = np.load(images.path)
        before = right(network, pixels, truth)
        low, high, strength, after = 0.0, 1.0, 0.0, before
        for _ in range(12):
            strength = (low + high) / 2
            after = right(disturbed(network, strength), pixels, truth)
            drop = 100 * (before.mean() - after.mean())
            if abs(drop - arguments.points) < 0.06:
                break
            low, high = (strength, high) if drop < arguments.points else (low, strength)
        lost, gained = int((before & ~after).sum()), int((~before & after).sum())
        print(f"weights disturbed by {100 * strength:.1f} %: top-1 {100 * before.mean():.2f} to {100 * after.mean():.2f} %")
        print(f"  {lost} lost, {gained} gained of {len(truth)} images: {100 * (lost + gained) / len(truth):.2f} % discordant")
        rng = np.random.default_rng(arguments.seed)
        found: Counter[str] = Counter()
        for _ in range(arguments.comparisons):
            drawn = rng.integers(0, len(truth), arguments.images)
            b, c = int((before & ~after)[drawn].sum()), int((~before & after)[drawn].sum())
            found[paired_drop(b, c, arguments.images, ALLOWED.accuracy_points / 100).verdict] += 1
        print(f"  {arguments.images} images drawn {arguments.comparisons} times: {dict(found)}")


def slower(arguments: argparse.Namespace) -> None:
    """Run the gate for real on a candidate that takes 10 % longer."""
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as folder:
        side = read_side(arguments.bundle, "baseline")
        candidate = _widened(side, 1 + arguments.percent / 100, Path(folder))
        _runs(side, candidate, arguments, Path(folder))


def same(arguments: argparse.Namespace) -> None:
    """Run the gate for real on a copy of the baseline."""
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as folder:
        side = read_side(arguments.bundle, "baseline")
        _runs(side, _as_candidate(side, side.path.read_bytes(), Path(folder)), arguments, Path(folder))


def _runs(baseline: Side, candidate: Side, arguments: argparse.Namespace, folder: Path) -> None:
    found: Counter[str] = Counter()
    estimates, seconds = [], []
    for number in range(arguments.runs):
        began, load = time.monotonic(), os.getloadavg()[0]
        device = Device(target=LocalTarget(), folder=folder / f"{number:03}", progress=Silent())
        device.meet()
        result = device.timed(baseline, candidate, None, BASE_MS, ALLOWED.latency_percent, False)
        rows = list(cost_rows(result, ALLOWED))
        row = rows[0]
        found[row.verdict] += 1
        seconds.append(time.monotonic() - began)
        estimates.append(row.data["estimate_percent"])
        words = f"{row.verdict} {row.figure} {row.data['pairs']} pairs, control {row.data['control']['pairs']}"
        others = ", ".join(f"{other.name} {other.verdict}" for other in rows[1:])
        print(f"{number + 1:>3} {words}; load {load:.1f}, {seconds[-1]:.0f} s; {others}; {row.reason}", flush=True)
        if arguments.pool:
            _leave(result, row.verdict, load, arguments.pool)
    share = 100 * found["BROKEN"] / max(arguments.runs, 1)
    print(f"{arguments.runs} real runs: {dict(found)}; BROKEN {share:.1f} %")
    print(f"estimates {np.min(estimates):+.1f} to {np.max(estimates):+.1f} %, median {np.median(estimates):+.2f} %")
    print(f"seconds a run: median {np.median(seconds):.0f}, most {np.max(seconds):.0f}")


def controls(arguments: argparse.Namespace) -> None:
    """Judge the baseline against itself, in the pairs that real runs left, as if it were a candidate."""
    runs = [json.loads(line) for line in arguments.pool.read_text().splitlines()]
    found: Counter[str] = Counter()
    for run in runs:
        pairs = tuple(run["control"])
        found[latency(Timed(control=pairs, pairs=pairs, alpha=0.05 / len(LOOKS)), ALLOWED.latency_percent).verdict] += 1
    ratios = [row for run in runs for row in _log_ratios(run["control"])]
    loads = [run["load"] for run in runs]
    print(f"{len(runs)} real controls, load {min(loads):.1f} to {max(loads):.1f}: {dict(found)}")
    print(f"{len(ratios)} pairs of processes of one model: standard deviation of ln ratio {100 * np.std(ratios):.2f} %")


def _log_ratios(pairs: Sequence[dict[str, Any]]) -> list[float]:
    return list(latency(Timed(control=tuple(pairs), pairs=tuple(pairs), alpha=0.05), 5.0).data["log_ratios"])


def _leave(result: Timed, verdict: str, load: float, path: Path) -> None:
    entry = {"verdict": verdict, "load": load, "control": list(result.control), "pairs": list(result.pairs)}
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _as_candidate(side: Side, content: bytes, folder: Path) -> Side:
    path = folder / "candidate.onnx"
    path.write_bytes(content)
    shown = side.shown.model_copy(update={"model_sha256": sha256_file(path), "size_bytes": len(content)})
    return Side(
        name="candidate", shown=shown, path=path, heads=side.heads, preprocessing=side.preprocessing, session=side.session
    )


def _widened(side: Side, wanted: float, folder: Path) -> Side:
    """Return a model with a branch beside it, which sees so many rows of an image that all takes `wanted` times as long.

    The time grows evenly with the rows, so two measurements give the third, and each further one a better one.
    """
    low, high = 4, side.preprocessing.height if side.preprocessing else 48
    ratios = [_ratio(side, _as_candidate(side, branched(side.path, rows), folder), folder) for rows in (low, high)]
    slope = (ratios[1] - ratios[0]) / (high - low)
    rows = min(high, max(1, round(low + (wanted - ratios[0]) / slope)))
    candidate = side
    for _ in range(CORRECTIONS):
        candidate = _as_candidate(side, branched(side.path, rows), folder)
        got = _ratio(side, candidate, folder, pairs=24)
        print(f"a convolution of {rows} rows beside the model: {100 * (got - 1):+.1f} % in 24 pairs of processes", flush=True)
        if abs(got - wanted) < CLOSE or rows in (1, high):
            break
        rows = min(high, max(1, rows + round((wanted - got) / slope)))
    return candidate


def _ratio(baseline: Side, candidate: Side, folder: Path, pairs: int = 12) -> float:
    device = Device(target=LocalTarget(), folder=folder / f"ratio-{candidate.shown.model_sha256[:8]}", progress=Silent())
    device.meet()
    from edgetune.verify.targets.interface import ModelRequest, PairsRequest, Request

    models = tuple(ModelRequest(name=s.name, path=s.path, sha256=s.shown.model_sha256) for s in (baseline, candidate))
    plan = PairsRequest(
        models=("baseline", "candidate"), sessions=(baseline.session, baseline.session), pairs=pairs, queries_per_block=20
    )
    request = Request(models=models, session=baseline.session, footprint=False, pairs=plan)
    found = LocalTarget().measure(request, device.folder, Silent())["pairs"]["pairs"]
    row = latency(Timed(control=tuple(found), pairs=tuple(found), alpha=0.05), 5.0)
    return 1 + float(row.data["estimate_percent"]) / 100


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (
        ("null", null),
        ("accuracy", accuracy),
        ("slower", slower),
        ("same", same),
        ("controls", controls),
        ("damage", damage),
    ):
        sub = commands.add_parser(name)
        sub.set_defaults(run=run)
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--pool", type=Path)
        if name == "damage":
            sub.add_argument("bundle", type=Path)
            sub.add_argument("fp32", type=Path)
            sub.add_argument("--data", default="digits")
        if name in ("slower", "same"):
            sub.add_argument("bundle", type=Path)
            sub.add_argument("--runs", type=int, default=40 if name == "slower" else 20)
            sub.add_argument("--percent", type=float, default=10.0)
        else:
            sub.add_argument("--comparisons", type=int, default=200 if name == "null" else 2000)
            sub.add_argument("--images", type=int, default=2000)
            sub.add_argument("--points", type=float, default=2.0)
    asked = parser.parse_args()
    print(f"looks after {LOOKS} pairs; tolerances {ALLOWED.to_json()}", flush=True)
    asked.run(asked)


if __name__ == "__main__":
    main()
