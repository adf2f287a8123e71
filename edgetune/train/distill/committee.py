"""Several teachers whose answers are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetune.device.heads import Head, columns_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from edgetune.train.distill.guide import Guide

__all__ = ["Committee", "mean_answers"]


class Committee:
    """What a training loop holds of several teachers: a guide to each, used as one.

    Each teacher's own answers are kept on disk, so that one more teacher is all that has to be asked.

    Args:
        guides: two or more, to the same student; none on features.
    """

    on_features = False
    projector = None

    def __init__(self, guides: Sequence[Guide]) -> None:
        if any(guide.on_features for guide in guides):
            raise ValueError("features of several teachers have no mean")
        self.guides, self.recipe = tuple(guides), guides[0].recipe

    @property
    def description(self) -> str:
        """Who the teachers are, in words."""
        return " and ".join(guide.description for guide in self.guides)

    def answers(self, view: int, rows: npt.NDArray[np.int64], views: torch.Tensor) -> torch.Tensor:
        """Return what the teachers say in the mean: logits `[n, C]`; see `Guide.answers` and `mean_answers`."""
        return self._mean([guide.answers(view, rows, views) for guide in self.guides])

    def loss(self, student: torch.Tensor, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the distillation's loss; see `Guide.loss`."""
        return self.guides[0].loss(student, answers, targets)

    def evaluate_teacher(self, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.float32]) -> dict[str, float]:
        """Return what the teachers reach together on the validation set; see `Guide.evaluate_teacher`."""
        answers = self._mean([guide.validation_answers(images) for guide in self.guides])
        return self.guides[0].scored(answers, targets)

    def _mean(self, answers: Sequence[torch.Tensor]) -> torch.Tensor:
        return mean_answers(answers, self.guides[0].heads, self.recipe.used_temperature)


def mean_answers(answers: Sequence[torch.Tensor], heads: Sequence[Head], temperature: float) -> torch.Tensor:
    """Return the logits of the mean of several teachers' probabilities at a temperature T: float32 `[n, C]`.

    A head of one label: T log(mean over teachers of softmax(z / T)), the arithmetic mean of Hinton, Vinyals and Dean 2015
    (arXiv:1503.02531, section 2); of several labels: T logit(mean of sigmoid(z / T)); a regression: the mean of the values.

    Args:
        answers: of each teacher, float32 `[n, C]`.
        heads: in the order of the columns.
        temperature: T.
    """
    import torch

    said = torch.stack(list(answers)).double() / temperature
    count = torch.tensor(float(len(answers)), dtype=said.dtype).log()
    parts = []
    for head, columns in zip(heads, columns_of(heads), strict=True):
        part = said[:, :, columns]
        if head.kind == "regression":
            mean = part.mean(dim=0)
        elif head.kind == "multi-label":
            present, absent = (torch.nn.functional.logsigmoid(sign * part).logsumexp(dim=0) for sign in (1, -1))
            mean = present - absent
        else:
            mean = part.log_softmax(dim=2).logsumexp(dim=0) - count
        parts.append(mean * temperature)
    return torch.cat(parts, dim=1).float()
