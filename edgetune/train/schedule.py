"""How long and how fast to learn: the number of epochs, and the learning rate and momentum of each step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from edgetune.recipe import TrainRecipe

__all__ = ["auto_epochs", "auto_teacher_epochs", "auto_warmup", "cycled_momentum", "lr_factor"]

WARMUP_STEPS = 40
TEACHER_FRACTION = 0.2
TAUGHT_TEACHER_FRACTION = 0.6
# Of one-cycle, as in Smith and Topin 2018 and fastai: where the rate begins, and between which values the momentum moves.
CYCLE_START = 1 / 25
CYCLE_MOMENTUM = (0.85, 0.95)


def auto_epochs(images: int) -> int:
    """Return the number of epochs for a train set: the steps grow with the square root of its size.

    5 for 5,300 images, 10 for 1,250, 30 for 140 and fewer, 3 for 14,000 and more.
    """
    return max(3, min(30, round(math.sqrt(130_000 / images))))


def auto_teacher_epochs(images: int, *, pretrained: bool, taught: bool = False) -> int:
    """Return the number of epochs for a teacher: a fifth of `auto_epochs`, but for one that begins at random weights.

    A teacher that knows its train images by heart says little of them beyond their labels, and those the student has
    (Cho and Hariharan, On the Efficacy of Knowledge Distillation, 2019). One that is taught itself learns less by heart.

    Args:
        images: of the train set.
        pretrained: whether it begins at pretrained weights.
        taught: whether it has teachers of its own; then it is three fifths instead of one.
    """
    epochs = auto_epochs(images)
    fraction = TAUGHT_TEACHER_FRACTION if taught else TEACHER_FRACTION
    return max(1, round(fraction * epochs)) if pretrained else epochs


def auto_warmup(steps: int, *, regression: bool) -> float:
    """Return the part of a run's steps that the learning rate rises: a tenth, but for a short regression.

    Adam's first steps are as long as the rate, whatever the gradient, and a squared error knows no bound: in a run of 75 steps,
    7 of them ruined a regression that the probe had fitted (R² 0.93 to -2.7, and 0.88 at the end), 22 left it whole (0.95 at
    the end). Classes do not need that: the digits lost 2.5 points of top-1 by it, in one run.

    Args:
        steps: of the whole run.
        regression: whether a head learns values; then the rate rises for 40 steps, as far as they are no three tenths.
    """
    return max(0.1, min(0.3, WARMUP_STEPS / max(1, steps))) if regression else 0.1


def lr_factor(step: float, total: int, recipe: TrainRecipe) -> float:
    """Return the factor of the peak learning rate at a step: a rise over the warm-up, then the schedule's fall.

    Args:
        step: counted from 0 over the whole run; a time budget may let it advance by more than 1.
        total: steps of the whole run.
        recipe: its schedule, with `warmup_fraction` decided.
    """
    warmup, last = float(recipe.warmup_fraction) * total, recipe.final_lr_fraction
    if step < warmup:
        if recipe.schedule == "one-cycle":
            return _cosine(CYCLE_START, 1.0, step / warmup)
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, total - warmup)
    match recipe.schedule:
        case "cosine" | "one-cycle":
            return _cosine(1.0, last, done)
        case "exponential":
            # The logarithm falls evenly; to nothing at all it would never come.
            return float(max(last, 1e-4) ** done)
        case "step":
            return float(recipe.decay_factor ** sum(step / total >= part for part in recipe.decay_at))
        case "constant":
            return 1.0
        case _:
            assert_never(recipe.schedule)


def cycled_momentum(step: float, total: int, recipe: TrainRecipe) -> float | None:
    """Return the momentum of a step of one-cycle, which falls while the rate rises; None for other schedules."""
    if recipe.schedule != "one-cycle":
        return None
    low, high = CYCLE_MOMENTUM
    warmup = float(recipe.warmup_fraction) * total
    if step < warmup:
        return _cosine(high, low, step / warmup)
    return _cosine(low, high, (step - warmup) / max(1.0, total - warmup))


def _cosine(start: float, end: float, done: float) -> float:
    """Return the value on half a cosine from `start` (done = 0) to `end` (done = 1)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
