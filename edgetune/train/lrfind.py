"""The learning-rate range test (Smith 2017): train a little at ever larger rates; see where the loss falls and bursts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgetune.artefacts import LrCurve
from edgetune.determinism import deterministic
from edgetune.errors import Interrupted, UsageError
from edgetune.files import write_atomic
from edgetune.train.distributed import world
from edgetune.train.job import TrainJob
from edgetune.train.opening import begin, decided, opened
from edgetune.train.setting import chosen_device, memory_remedy, resolved_threads
from edgetune.train.start import load_start

if TYPE_CHECKING:
    from edgetune.progress import Progress
    from edgetune.train.finetune import FineTuning

__all__ = ["find_lr", "suggest"]

SMALLEST, LARGEST = 1e-6, 1.0
# How much of the loss so far goes into the smoothed one, and how far above its smallest that may rise.
SMOOTHING, BURST = 0.9, 3.0


def find_lr(job: TrainJob, steps: int, progress: Progress, stop: Callable[[], bool] = lambda: False) -> LrCurve:
    """Return the loss at learning rates from 1e-6 to 1, or to where it bursts.

    The network begins as fine-tuning would, with its linear probe; what is learnt is thrown away.

    Args:
        job: what would be trained.
        steps: from the smallest to the largest rate.
        progress: told of each step.
        stop: asked after each step; true raises `Interrupted`.

    Raises:
        Interrupted: `stop` said so.
        UsageError: there are several processes.
    """
    if world().size > 1:
        raise UsageError("the range test runs in one process", remedy="start it without torchrun")
    device = chosen_device(job.recipe)
    with deterministic(resolved_threads(job.recipe), job.seed, device), memory_remedy(job.recipe):
        start = load_start(job.model, job.dataset, job.functions, device)
        recipe = decided(job.recipe, job.dataset, progress, fitting=start.fitting)
        # Every step is to be a step of the same kind: no warm-up, no end.
        recipe = recipe.model_copy(update={"schedule": "constant", "warmup_fraction": 0.0, "ema_epochs": 0.0})
        run = opened(job, start, recipe, device, progress)
        begin(run, job, progress)
        lrs, losses = _climb(run, steps, progress, stop)
    write_atomic(job.folder / "curve.json", json.dumps({"lrs": lrs, "losses": losses}).encode())
    return LrCurve(lrs=tuple(lrs), losses=tuple(losses), suggestion=suggest(lrs, losses)).at(job.folder)


def _climb(run: FineTuning, steps: int, progress: Progress, stop: Callable[[], bool]) -> tuple[list[float], list[float]]:
    """Return the rates that were tried, and the smoothed loss at each."""
    lrs: list[float] = []
    losses: list[float] = []
    average = best = math.inf
    run.learner.open_epoch(0, 1)
    number = 0
    for epoch in range(math.ceil(steps / run.steps_per_epoch)):
        for batch in run.feed.stream(epoch, epoch, 0):
            lr = SMALLEST * (LARGEST / SMALLEST) ** (number / (steps - 1))
            loss = run.learner.step(batch, lr / run.recipe.lr)
            # Adam's correction of the start: the average of few values is not pulled to the first.
            average = loss if number == 0 else SMOOTHING * average + (1 - SMOOTHING) * loss
            if not math.isfinite(loss) or (number > steps // 10 and average > BURST * best):
                return lrs, losses
            best = min(best, average)
            lrs.append(lr)
            losses.append(average)
            number += 1
            progress.advance("learning-rate range test", number, steps, f"rate {lr:.1e}, loss {average:.3f}")
            if stop():
                raise Interrupted("interrupted in the range test", remedy="run the same command again; it starts over")
            if number == steps:
                return lrs, losses
    return lrs, losses


def suggest(lrs: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the rate at which the smoothed loss falls the fastest, per factor of the rate; None if it never falls.

    Args:
        lrs: upwards, evenly spaced on a logarithmic scale.
        losses: smoothed, one for each.
    """
    lowest = min(range(len(losses)), key=losses.__getitem__, default=0)
    # The slope over a tenth of the test: of single steps it would be that of the noise.
    span = max(1, len(losses) // 10)
    falls = {i: losses[i] - losses[i + span] for i in range(max(0, lowest - span + 1)) if i + span < len(losses)}
    if not falls or max(falls.values()) <= 0:
        return None
    steepest = max(falls, key=falls.__getitem__)
    return math.sqrt(lrs[steepest] * lrs[steepest + span])
