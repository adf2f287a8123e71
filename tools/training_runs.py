"""What the benchmarks of training share: `edgetune train` in a process of its own, timed, and its network on the test set."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from edgetune.artefacts import Checkpoint, Dataset
from edgetune.cli.console import Plain
from edgetune.determinism import spin_briefly
from edgetune.pipeline import Run
from edgetune.recipe import Recipe
from edgetune.stagecache import StageCache

__all__ = ["Result", "command", "compare", "forget", "open_run", "parsed", "prepared", "test_top1", "train"]


# As the program itself does, before torch is loaded.
spin_briefly()


@dataclass(frozen=True)
class Result:
    """What one training gave: top-1 on the test set in percent, and the seconds that the whole command took."""

    top1_percent: float
    seconds: float


def open_run(output: Path, settings: Sequence[str]) -> Run:
    """Return the run of a folder, as the command line would open it."""
    output.mkdir(parents=True, exist_ok=True)
    return Run.open(Recipe.load(None, settings), output, Plain(sys.stderr))


def prepared(output: Path, settings: Sequence[str]) -> Dataset:
    """Return the decoded images of a run, decoding them first if need be."""
    return open_run(output, settings).dataset


def command(arguments: Sequence[str]) -> tuple[float, str]:
    """Run a command; return its wall-clock seconds and what it wrote to stdout."""
    began = time.perf_counter()
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, done.stdout


def train(output: Path, settings: Sequence[str]) -> Result:
    """Run `edgetune train` with settings and return what it gave."""
    line = [sys.executable, "-m", "edgetune", "train", "--output", str(output)]
    seconds, _ = command([*line, *(part for setting in settings for part in ("--set", setting))])
    run = open_run(output, settings)
    return Result(test_top1(run.checkpoint, run.dataset), seconds)


def test_top1(checkpoint: Checkpoint, dataset: Dataset) -> float:
    """Return a checkpoint's top-1 on the test set, in percent."""
    import torch

    from edgetune.train.evaluate import predict
    from edgetune.train.network import Normalisation
    from edgetune.train.start import load_network

    normalise = Normalisation(mean=checkpoint.mean, std=checkpoint.std)
    logits = predict(load_network(checkpoint), normalise, dataset.images("test"), torch.device("cpu")).numpy()
    return float(100 * (logits.argmax(axis=1) == dataset.labels("test")).mean())


def compare(results: dict[str, list[Result]], reference: str) -> None:
    """Print each method's mean over its runs, and its difference from the reference."""
    base = results[reference]
    for name, runs in results.items():
        top1 = [run.top1_percent for run in runs]
        points = mean(top1) - mean(run.top1_percent for run in base)
        times = mean(run.seconds for run in runs) / mean(run.seconds for run in base)
        each = ", ".join(f"{value:.2f}" for value in top1)
        seconds = mean(run.seconds for run in runs)
        print(f"{name:<28} top-1 {mean(top1):6.2f} % ({each})  {points:+.2f} points  {seconds:6.1f} s  x{times:.2f}")


def parsed(text: str) -> dict[str, Any]:
    """Return the JSON object in the last line of a text."""
    content: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return content


def forget(output: Path, *stages: str) -> None:
    """Remove stages of a run, so that they are computed again."""
    import shutil

    for stage in stages:
        shutil.rmtree(StageCache(output, Plain(sys.stderr)).root / stage, ignore_errors=True)
