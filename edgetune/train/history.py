"""The history of a run, a line for each epoch, and validation scores in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetune.train.scores import Scores

__all__ = ["Epoch", "in_words", "validated", "watched"]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of the history; epoch 0 is the network before fine-tuning, and has no train loss.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the epoch's steps, with the teacher's share.
        val_loss: without label smoothing, of the averaged weights.
        val_score: what epochs are chosen by; see `edgetune.train.scores`.
        val_metrics: by name with the unit.
        lr: of the head, at the last step.
    """

    epoch: int
    train_loss: float | None
    val_loss: float
    val_score: float
    val_metrics: dict[str, float] = field(default_factory=dict)
    lr: float


def in_words(metrics: Mapping[str, float]) -> str:
    """Return scores on the validation set in words: `top-1 80.30 %`, `RMSE 1.25`."""
    return ", ".join(
        f"{name.removesuffix(' %')} {value:.2f} %" if name.endswith(" %") else f"{name} {value:.4g}"
        for name, value in metrics.items()
    )


def validated(scores: Scores) -> str:
    """Return what validation found in words."""
    return f"validation loss {scores.loss:.3f}, validation {in_words(scores.metrics)}"


def watched(line: Epoch) -> dict[str, float]:
    """Return what those who watch are told of an epoch."""
    values = {"val/loss": line.val_loss, **{f"val/{name}": value for name, value in line.val_metrics.items()}}
    return values if line.train_loss is None else {"train/epoch_loss": line.train_loss, **values}
