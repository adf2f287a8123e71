"""What the training loop holds: the teacher's answers to the student's views, and how far the student is from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgetune.device.heads import Head, column_names
from edgetune.train.augment import to_float
from edgetune.train.distill.cache import AnswerCache, as_stored
from edgetune.train.distill.losses import Gather, distillation_loss, feature_loss
from edgetune.train.distill.teacher import Teacher, TeacherSource
from edgetune.train.scores import score_heads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

    from edgetune.recipe import DistillRecipe

__all__ = ["Guide"]

VALIDATION_BATCH = 64


class Guide:
    """A teacher beside a training loop.

    An answer is always the one that a cache would give back, whether there is a cache or not, and whether it knew the answer or
    not: so a run's result does not depend on what was cached. Of a batch that is not wholly known the teacher looks at all
    images, since the last bits of what it says of one may depend on how many there are beside it.

    Args:
        source: the teacher, created when it is first needed.
        cache: of the answers to train views; None asks the teacher each time.
        recipe: loss, temperature and weights.
        heads: the student's.
        device: where the answers are wanted.
        offset: per column `[C]`, what a regression's values are counted from; 0 for other columns.
        scale: per column `[C]`, the unit they are counted in; 1 for other columns.
        head_weights: of the heads, as in the labels' loss; all 1 if empty.
        gather: see `losses.distillation_loss`.
        projector: loss `features`: from the student's to the teacher's features; learns beside the student.
        validation_cache: of the logits of validation images.

    Attributes:
        on_features: whether the student's pooled features are compared, instead of its logits.
        teacher_images: images that the teacher looked at so far.
        teacher_seconds: how long that took.
        cached_images: answers that came from a cache so far.
    """

    def __init__(
        self,
        source: TeacherSource,
        cache: AnswerCache | None,
        recipe: DistillRecipe,
        heads: Sequence[Head],
        device: torch.device,
        *,
        offset: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
        head_weights: Sequence[float] = (),
        gather: Gather | None = None,
        projector: nn.Module | None = None,
        validation_cache: AnswerCache | None = None,
    ) -> None:
        import torch

        self.source, self.recipe, self.heads, self.device = source, recipe, tuple(heads), device
        self.cache, self.validation_cache, self.gather, self.head_weights = cache, validation_cache, gather, head_weights
        self.on_features = recipe.loss == "features"
        if self.on_features != (projector is not None):
            raise ValueError("a projector belongs to the loss features, and to no other")
        self.projector = projector.to(device) if projector is not None else None
        width = len(column_names(heads))
        self._offset = torch.zeros(width) if offset is None else offset.cpu()
        self._scale = torch.ones(width) if scale is None else scale.cpu()
        self._teacher: Teacher | None = None
        self.teacher_images = self.cached_images = 0
        self.teacher_seconds = 0.0

    @property
    def teacher(self) -> Teacher:
        """The teacher itself, loaded when it is first asked for."""
        if self._teacher is None:
            self._teacher = self.source.load()
        return self._teacher

    def answers(self, view: int, rows: npt.NDArray[np.int64], views: torch.Tensor) -> torch.Tensor:
        """Return what the teacher says of one view of some images: logits `[n, C]`, or for the loss features `[n, G]`.

        Args:
            view: which one, from 0: the same number must stand for the same views.
            rows: of the images, `[n]`; those without labels follow those with.
            views: float32 `[n, K, H, W]` in [0, 1], exactly what the student sees.

        Returns:
            float32, on the guide's device; regressions in standard deviations of the train set.

        Raises:
            DataError: the teacher's answers are not numbers.
            UsageError: the answers cannot be stored, or the teacher has no features to show.
        """
        ask = self._features if self.on_features else self._logits
        return self._answered(self.cache, view, rows, views, ask).to(self.device)

    def loss(self, student: torch.Tensor, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the distillation's loss, the mean over images, times `recipe.weight`.

        Args:
            student: logits `[n, C]`, or the pooled features `[n, F]` where `on_features`.
            answers: what `answers` returned.
            targets: `[n, T]`, NaN where not known.
        """
        if self.projector is not None:
            return self.recipe.weight * feature_loss(student, answers, self.projector)
        return self.recipe.weight * distillation_loss(
            student, answers, targets, self.heads, self.recipe, weights=self.head_weights, gather=self.gather
        )

    @property
    def description(self) -> str:
        """Who the teacher is, in words."""
        return self.source.description

    def evaluate_teacher(self, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.float32]) -> dict[str, float]:
        """Return what the teacher reaches on the validation set, by name with its unit, such as `top-1 %`.

        Args:
            images: uint8 `[N, H, W, K]`, as the student will see them on the device.
            targets: `[N, T]`, in the units of the data.
        """
        return self.scored(self.validation_answers(images), targets)

    def validation_answers(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return the teacher's logits of the validation images: float32 `[N, C]`, on the CPU; see `answers`."""
        import numpy as np
        import torch

        parts = []
        for start in range(0, len(images), VALIDATION_BATCH):
            batch = torch.from_numpy(np.array(images[start : start + VALIDATION_BATCH])).to(self.device)
            rows = np.arange(start, start + len(batch))
            parts.append(self._answered(self.validation_cache, 0, rows, to_float(batch), self._logits))
        return torch.cat(parts)

    def scored(self, answers: torch.Tensor, targets: npt.NDArray[np.float32]) -> dict[str, float]:
        """Return what answers `[N, C]` to the validation images are worth, by name with its unit."""
        return score_heads(self.heads, (answers * self._scale + self._offset).numpy(), targets, loss=0.0).metrics

    def _answered(
        self,
        cache: AnswerCache | None,
        view: int,
        rows: npt.NDArray[np.int64],
        views: torch.Tensor,
        ask: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return answers float32 `[n, width]` on the CPU, from a cache where all are known; what was not is then stored."""
        import numpy as np
        import torch

        known = np.zeros(len(rows), np.bool_)
        if cache is not None:
            found, known = cache.get(view, rows)
            self.cached_images += int(known.sum())
            if known.all():
                return torch.from_numpy(found)
        else:
            found = np.empty(0, np.float32)
        began = time.perf_counter()
        # What is kept must not depend on the precision that the student happens to learn in.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            said = ask(views).float().cpu().numpy()
        self.teacher_seconds += time.perf_counter() - began
        self.teacher_images += len(rows)
        answers = as_stored(said)
        if cache is not None:
            cache.put(view, rows[~known], answers[~known])
            answers[known] = found[known]
        return torch.from_numpy(answers)

    def _logits(self, views: torch.Tensor) -> torch.Tensor:
        return (self.teacher.logits(views).cpu() - self._offset) / self._scale

    def _features(self, views: torch.Tensor) -> torch.Tensor:
        return self.teacher.features(views)
