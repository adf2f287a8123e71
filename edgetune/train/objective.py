"""What training minimises and what it is judged by: the loss and the scores of all heads of a network.

A regression is learnt in units of its train set's standard deviation, around its mean, so that heads weigh alike and one
learning rate suits all; `fold_units` gives the finished network the units of the data back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.device.heads import Head, columns_of, targets_of
from edgetune.errors import UsageError
from edgetune.recipe import TaskRecipe
from edgetune.train.scores import Scores, score_heads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

    Targets = npt.NDArray[np.float32]

__all__ = ["Mixture", "Objective", "fold_units"]

# How much more a rare class may weigh than it would without balancing.
LARGEST_WEIGHT = 100.0


@dataclass(frozen=True)
class Mixture:
    """A batch of mixed images: the targets of their partners `[n, T]`, and the share of each image itself `[n]`."""

    targets: torch.Tensor
    share: torch.Tensor


class Objective:
    """The losses of all heads, weighed and summed.

    Args:
        heads: in the order of the logits.
        tasks: per head's name, how it is to be learnt; a head that is not named is learnt by default.
        train: the targets of the train set, float32 `[N, T]`, NaN where not known: they give units and class weights.
        label_smoothing: of heads with a single label.
        balanced: whether rare classes and labels weigh more.

    Raises:
        UsageError: there is nothing to balance.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        tasks: Mapping[str, TaskRecipe],
        train: Targets,
        *,
        label_smoothing: float,
        balanced: bool = False,
    ) -> None:
        import torch

        self.heads, self.label_smoothing = tuple(heads), label_smoothing
        self.columns, self.places = columns_of(heads), targets_of(heads)
        self.tasks = [tasks.get(head.name, TaskRecipe(kind=head.kind)) for head in heads]  # type: ignore[arg-type]
        if balanced and all(head.kind == "regression" for head in heads):
            raise UsageError("train.balance has no classes to balance in a regression", remedy="set train.balance = none")
        width = self.columns[-1].stop
        self.offset, self.scale = torch.zeros(width), torch.ones(width)
        self.weights: list[torch.Tensor | None] = [None] * len(heads)
        for index, (head, place) in enumerate(zip(heads, self.places, strict=True)):
            known = torch.from_numpy(train[:, place])
            if head.kind == "regression":
                self._take_units(self.columns[index], known)
            elif balanced:
                self.weights[index] = _class_weights(head, known)

    def _take_units(self, columns: slice, known: torch.Tensor) -> None:
        mean = known.nanmean(dim=0)
        deviation = (known - mean).square().nanmean(dim=0).sqrt()
        # A value that never varies has no unit of its own.
        self.scale[columns] = deviation.where(deviation > 0, 1.0)
        # Nor has one that no train image knows.
        self.offset[columns] = mean.nan_to_num(0.0)

    def standardised(self, targets: torch.Tensor) -> torch.Tensor:
        """Return targets `[n, T]` as the loss takes them: regressions in standard deviations from the mean."""
        result = targets.clone()
        for head, columns, place in zip(self.heads, self.columns, self.places, strict=True):
            if head.kind == "regression":
                offset, scale = self.offset[columns].to(targets.device), self.scale[columns].to(targets.device)
                result[:, place] = (targets[:, place] - offset) / scale
        return result

    def known(self, targets: torch.Tensor) -> torch.Tensor:
        """Return how many targets of each head are known in a batch: float `[heads]`, at least 1 for a division."""
        import torch

        counts = [targets[:, place].isfinite().sum() for place in self.places]
        return torch.stack(counts).clamp_min(1).float()

    def loss(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        *,
        mixture: Mixture | None = None,
        known: torch.Tensor | None = None,
        smoothing: float | None = None,
        weighed: bool = True,
    ) -> torch.Tensor:
        """Return the sum of all heads' losses, each the mean over its known targets.

        Args:
            logits: `[n, C]`.
            targets: `[n, T]`, standardised.
            mixture: if the images are mixed.
            known: per head, what the sum is divided by; the known targets of this batch if None. A process that sees a part
                of a batch gives its share of the whole batch's.
            smoothing: instead of the recipe's.
            weighed: whether class weights apply.
        """
        known = self.known(targets) if known is None else known
        total = logits.new_zeros(())
        for index, (columns, place) in enumerate(zip(self.columns, self.places, strict=True)):
            part = logits[:, columns]
            each = self._each(index, part, targets[:, place], smoothing, weighed)
            if mixture is not None:
                other = self._each(index, part, mixture.targets[:, place], smoothing, weighed)
                share = mixture.share[:, None]
                each = share * each + (1 - share) * other
            total = total + self.tasks[index].weight * each.sum() / known[index]
        return total

    def _each(
        self, index: int, logits: torch.Tensor, targets: torch.Tensor, smoothing: float | None, weighed: bool
    ) -> torch.Tensor:
        """Return the loss of each target of a head: `[n, width]`, 0 where it is not known."""
        import torch.nn.functional as F

        head, task = self.heads[index], self.tasks[index]
        weights = self.weights[index] if weighed else None
        weights = None if weights is None else weights.to(logits.device)
        smoothing = self.label_smoothing if smoothing is None else smoothing
        if head.kind == "single-label":
            return _single_label(logits, targets, task.loss, smoothing, weights)
        missing = targets.isnan()
        targets = targets.masked_fill(missing, 0.0)
        if head.kind == "multi-label":
            each = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
        elif task.loss == "huber":
            each = F.huber_loss(logits, targets, delta=task.huber_delta, reduction="none")
        else:
            each = F.mse_loss(logits, targets, reduction="none")
        return each.masked_fill(missing, 0.0)

    def in_units(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits `[n, C]` with regressions in the units of the data."""
        return logits * self.scale.to(logits.device) + self.offset.to(logits.device)

    def scores(self, logits: torch.Tensor, targets: Targets) -> Scores:
        """Return what a network in training reaches.

        Args:
            logits: `[N, C]`, as the network in training gives them.
            targets: `[N, T]`, in the units of the data.
        """
        import numpy as np
        import torch

        with torch.inference_mode():
            given = self.standardised(torch.from_numpy(np.array(targets)))
            loss = self.loss(logits, given, smoothing=0.0, weighed=False).item()
        return score_heads(self.heads, self.in_units(logits).numpy(), targets, loss)


def _single_label(
    logits: torch.Tensor, targets: torch.Tensor, kind: str, smoothing: float, weights: torch.Tensor | None
) -> torch.Tensor:
    import torch.nn.functional as F

    missing = targets[:, 0].isnan()
    labels = targets[:, 0].masked_fill(missing, 0).long()
    if kind == "bce":
        wanted = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        wanted = wanted * (1 - smoothing) + smoothing / logits.shape[1]
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
        each = each if weights is None else each * weights[labels]
    else:
        each = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction="none")
    return each.masked_fill(missing, 0.0)[:, None]


def _class_weights(head: Head, known: torch.Tensor) -> torch.Tensor:
    """Return what makes all classes (or the presence and absence of a label) weigh alike: `[columns]`.

    Classes: N / (C n_c), whose mean over the train set is 1; labels: absent / present images, for the present ones.
    """
    import torch

    if head.kind == "single-label":
        labels = known[:, 0][~known[:, 0].isnan()].long()
        counts = torch.bincount(labels, minlength=len(head.columns)).float()
        return (len(labels) / (len(head.columns) * counts.clamp_min(1))).clamp_max(LARGEST_WEIGHT)
    present, absent = (known == 1).sum(dim=0).float(), (known == 0).sum(dim=0).float()
    return (absent / present.clamp_min(1)).clamp(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)


def fold_units(last: nn.Linear, objective: Objective) -> None:
    """Make a trained network's last layer give regressions in the units of the data: s(Wx + b) + o = (sW)x + (sb + o)."""
    import torch

    scale, offset = objective.scale.to(last.weight.device), objective.offset.to(last.weight.device)
    with torch.no_grad():
        last.weight.mul_(scale[:, None])
        last.bias.mul_(scale).add_(offset)
