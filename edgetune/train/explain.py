"""What the history of a training says to a person: that nothing was learnt, too much by heart, or not yet enough.

A loss that is not a number ends the training where it occurs; it is not looked for here. Everything is judged so that the ups
and downs of a healthy training are no alarm: better no warning than a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["explain_history"]

Line = Mapping[str, Any]

STANDARD_ERRORS = 2.0
"""Within so many of them above chance, a score may be luck."""
RISE, WOBBLES, LAST = 1.10, 4.0, 3
"""Overfitting: the last 3 (or tenth) of the validation losses are each a tenth, and 4 times their wobble, above the lowest."""
FALL, VAL_FALL, SHARE = 0.90, 0.95, 0.05
"""Underfitting: the last two epochs each took a tenth off the train loss; the last took a twentieth off the validation loss,
and was a twentieth of the train loss's way down."""
HARDLY = 0.95
"""What is left of a train loss that hardly fell."""


def explain_history(history: Sequence[Line], *, chance: float, images: int = 0) -> tuple[str, ...]:
    """Return warnings, each a sentence with what was found and what to do about it; none for a healthy training.

    Args:
        history: a line per epoch, in order: `epoch` (0 is before fine-tuning), `train_loss`, `val_loss`, `val_score` (larger is
            better) and `val_metrics`, by name with the unit.
        chance: the score of who has learnt nothing: names the largest class every time, or predicts the mean.
        images: in the validation set: whether top-1 beats chance is a question of how many they are; 0 asks no such question.
    """
    history = [line for line in history if _is_number(line.get("val_loss")) and _is_number(line.get("val_score"))]
    if not history:
        return ()
    learnt = [line for line in history if line["epoch"] > 0 and _is_number(line.get("train_loss"))]
    nothing = _nothing_learnt(history, learnt, chance, images)
    if nothing:
        return (nothing,)
    return tuple(warning for warning in (_overfitting(learnt), _underfitting(learnt)) if warning)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _nothing_learnt(history: Sequence[Line], learnt: Sequence[Line], chance: float, images: int) -> str:
    score = max(line["val_score"] for line in history)
    names = list(history[-1].get("val_metrics", {}))
    is_top1 = names == ["top-1 %"]
    # Of a share of so many images, by the binomial distribution.
    error = math.sqrt(chance * max(0.0, 100.0 - chance) / images) if is_top1 and images else 0.0
    if score > chance + STANDARD_ERRORS * error:
        return ""
    if is_top1:
        baseline = f"naming one class every time ({chance:.1f} %)"
    else:
        mean = any(name.endswith("R²") for name in names)
        baseline = f"{'predicting the mean every time' if mean else 'chance'} (a score of {chance:.1f})"
    if score <= chance:
        what = f"the network learned nothing: it does no better on the validation set than {baseline}"
    else:
        what = (
            f"the network may have learned nothing: on {images} validation images, {score:.1f} % cannot be told from {baseline}"
        )
    if len(learnt) > 1 and learnt[-1]["train_loss"] < HARDLY * learnt[0]["train_loss"]:
        losses = f"{learnt[0]['train_loss']:.3f} to {learnt[-1]['train_loss']:.3f}"
        return (
            f"{what}, although the train loss fell from {losses}: it learned the train images by heart; check that the labels "
            "mean the same in both sets, and give it more images"
        )
    return f"{what}; check the labels, use pretrained weights, and look for another train.lr with `edgetune lr-find`"


def _overfitting(learnt: Sequence[Line]) -> str:
    """Look for a validation loss that rises again, and stays up, while the train loss goes on falling."""
    losses, train = ([line[key] for line in learnt] for key in ("val_loss", "train_loss"))
    last = max(LAST, len(learnt) // 10)
    if len(learnt) <= last:
        return ""
    low = min(range(len(losses)), key=losses.__getitem__)
    lowest = losses[low]
    if low >= len(losses) - last or min(losses[-last:]) < max(RISE * lowest, lowest + WOBBLES * _wobble(losses)):
        return ""
    if sum(train[-last:]) / last >= train[low]:
        return ""
    epoch = learnt[low]["epoch"]
    before, after = (max(line["val_score"] for line in part) for part in (learnt[: low + 1], learnt[low + 1 :]))
    what = (
        f"overfitting after epoch {epoch}: the train loss fell on from {train[low]:.3f} to {train[-1]:.3f}, but the validation "
        f"loss rose from {losses[low]:.3f} to {losses[-1]:.3f}"
    )
    if after > before:
        return (
            f"{what}, while the score still rose from {before:.2f} to {after:.2f}: decisions get better, but too sure; try a "
            f"larger train.label_smoothing, stronger train.augment, or more images"
        )
    return (
        f"{what}; try train.epochs = {epoch}, stronger train.augment (policy, mixup, erase), a larger train.weight_decay, or "
        "more images"
    )


def _wobble(values: Sequence[float]) -> float:
    """Return the standard deviation of what is neither level nor slope: from the median size of the second differences.

    Those of independent noise have 6 times its variance; the median size of a normal value is 0.6745 standard deviations.
    """
    seconds = sorted(abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False))
    return seconds[len(seconds) // 2] / (0.6745 * math.sqrt(6.0)) if seconds else 0.0


def _underfitting(learnt: Sequence[Line]) -> str:
    """Look for losses that still fall steeply, and a score that still rises, as the training ends."""
    if len(learnt) < LAST:
        return ""
    first, second, third = learnt[-LAST:]
    train = [line["train_loss"] for line in (first, second, third)]
    steep = 0 < train[1] <= FALL * train[0] and train[2] <= FALL * train[1]
    # A tenth of nearly nothing is nothing: it must count beside the way that the loss came down.
    counts = train[1] - train[2] >= SHARE * (learnt[0]["train_loss"] - train[2])
    rises = third["val_score"] > max(line["val_score"] for line in learnt[:-1])
    if not (steep and counts and rises and third["val_loss"] <= VAL_FALL * second["val_loss"]):
        return ""
    val = [line["val_loss"] for line in (second, third)]
    return (
        f"training ended too early: in the last epoch the train loss still fell from {train[1]:.3f} to {train[2]:.3f} and the "
        f"validation loss from {val[0]:.3f} to {val[1]:.3f}; train for more epochs than {third['epoch']}, "
        "or with a larger train.lr (`edgetune lr-find`)"
    )
