"""Which weights a run keeps: those that it ended with, unless an earlier epoch is better by more than chance explains.

The best of several epochs is partly the luckiest on these validation images, and the fewer there are the more so; the last
ones, at small learning rates, are better in the mean. So an earlier epoch has to show that it is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.train.history import validated
from edgetune.train.scores import Scores, score_heads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from edgetune.device.heads import Head

    Array = npt.NDArray[np.float32]

__all__ = ["Candidate", "chosen", "is_clearly_better"]

GROUPS = 50
"""Into so many the images are dealt; each is left out once."""
CRITICAL_Z = 2.33
"""One chance in a hundred, on one side: the best of several epochs is compared, and it is lucky more often than any one."""
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Weights that may be kept.

    Attributes:
        state: of the network, by name.
        epoch: at whose end they were, counted from 1; 0 is the network that the run began with.
        averaged: they are the mean over so many epochs up to that one; 0: no mean.
        outputs: for the validation images, in the units of the data: `[N, C]`.
        scores: on the validation images.
    """

    state: Mapping[str, torch.Tensor]
    epoch: int
    averaged: int
    outputs: Array
    scores: Scores

    def __str__(self) -> str:
        """Return what these weights are called."""
        return f"mean of the last {self.averaged} epochs" if self.averaged else f"epoch {self.epoch}"


def chosen(
    best: Candidate, last: Candidate, mean: Candidate | None, targets: Array, heads: Sequence[Head]
) -> tuple[Candidate, list[str]]:
    """Return what is kept, and what there is to say of it.

    Args:
        best: the epoch with the best score.
        last: what the run ended with; may be the same.
        mean: over the last epochs; kept instead of the last one if its loss is lower.
        targets: of the validation images: `[N, T]`, NaN where not known.
        heads: in the order of the columns.
    """
    kept, reasons = last, []
    if mean is not None:
        better = mean.scores.loss < last.scores.loss
        kept = mean if better else last
        reasons.append(f"{mean}: {validated(mean.scores)} ({'kept' if better else f'not better than {last}'})")
    if best.scores.score > kept.scores.score:
        clearly = is_clearly_better(best.outputs, kept.outputs, targets, heads)
        reasons.append(
            f"{best} validated better than {kept} by more than chance explains, and is kept"
            if clearly
            else f"{best} validated better than {kept} by no more than chance explains: {kept} is kept"
        )
        kept = best if clearly else kept
    return kept, reasons


def is_clearly_better(candidate: Array, standard: Array, targets: Array, heads: Sequence[Head]) -> bool:
    """Return whether a candidate's score is better than a standard's by more than another draw of images would change.

    The standard error of the difference, on the same images for both, is that of a delete-a-group jackknife, which serves every
    score alike: top-1, mean average precision, R² (Shao and Tu 1995, "The jackknife and bootstrap", section 2.3).

    Args:
        candidate: logits, and values in the units of the data: `[N, C]`.
        standard: likewise, of the network that is kept unless the candidate is clearly better.
        targets: `[N, T]`, NaN where not known.
        heads: in the order of the columns.
    """
    import numpy as np

    def lead(rows: npt.NDArray[np.int64]) -> float:
        ours, theirs = (score_heads(heads, outputs[rows], targets[rows], 0.0).score for outputs in (candidate, standard))
        return ours - theirs

    everyone = np.arange(len(targets))
    whole = lead(everyone)
    if whole <= 0 or len(targets) < 2:
        return False
    groups = np.array_split(np.random.default_rng(SEED).permutation(everyone), min(GROUPS, len(everyone)))
    rest = [lead(np.setdiff1d(everyone, group)) for group in groups]
    return whole > CRITICAL_Z * math.sqrt((len(groups) - 1) * float(np.var(rest)))
