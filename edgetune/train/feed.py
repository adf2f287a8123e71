"""What a run sees in each step: which images in which order, in which views, with which targets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgetune.errors import UsageError
from edgetune.train.augment import Draws, draw
from edgetune.train.distributed import World, world
from edgetune.train.objective import Objective
from edgetune.train.reading import Reader
from edgetune.train.step import ORDER, VIEWS, Batch, generator, make_batch, mixes, step_seed

if TYPE_CHECKING:
    import torch

    from edgetune.artefacts import Dataset
    from edgetune.recipe import TrainRecipe

__all__ = ["Feed"]


class Feed:
    """The batches of a run; several processes each get their part of every step.

    Args:
        dataset: the images, and those without labels behind them.
        recipe: batch size, sampler and views, with `augment.flip` decided.
        objective: standardises the targets.
        seed: where all randomness comes from.
        device: where the batches go.

    Attributes:
        rows: images that an epoch is made of.
        steps_per_epoch: full batches; what is left over is not seen in this epoch, and another part each time.
        view: of the epoch that is open: the number that its random views are drawn from.

    Raises:
        UsageError: the batch size cannot be shared evenly by the processes.
    """

    def __init__(self, dataset: Dataset, recipe: TrainRecipe, objective: Objective, *, seed: int, device: torch.device) -> None:
        import numpy as np
        import torch

        self.recipe, self.objective, self.seed, self.device = recipe, objective, seed, device
        self.size = dataset.preprocessing.height, dataset.preprocessing.width
        self.world: World = world()
        if recipe.batch_size % self.world.size:
            raise UsageError(
                f"train.batch_size = {recipe.batch_size} cannot be shared evenly by {self.world.size} processes",
                remedy=f"use a multiple of {self.world.size}",
            )
        self.rows = dataset.counts["train"] + dataset.unlabelled
        self.steps_per_epoch = max(1, self.rows // recipe.batch_size)
        known = torch.from_numpy(np.array(dataset.targets("train")))
        unknown = torch.full((dataset.unlabelled, known.shape[1]), math.nan)
        self.targets = objective.standardised(torch.cat([known, unknown]))
        self._reader = Reader([dataset.source_images(), *([dataset.unlabelled_images()] if dataset.unlabelled else [])], device)
        self._chances = _chances(dataset) if recipe.balance == "sampler" else None
        self.view = 0
        self._order: torch.Tensor | None = None
        self._draws: Draws | None = None

    def stream(self, epoch: int, view: int, first_step: int) -> Iterator[Batch]:
        """Yield this process's part of each step of an epoch, from a step (counted from 0) on.

        Args:
            epoch: counted from 0.
            view: the number that the random views are drawn from; the epoch, unless views come again.
            first_step: the steps before it are left out.
        """
        self.view = view
        self._draws = draw(self.rows, self.recipe.augment, generator(self.seed, view, VIEWS))
        self._order = self._ordered(epoch)
        part = slice(None) if mixes(self.recipe.augment) else self._own()
        steps = range(first_step, self.steps_per_epoch)
        wanted = [self._rows_of(step)[part].numpy() for step in steps]
        for step, images in zip(steps, self._reader.stream(wanted), strict=True):
            yield self._batch(images, epoch, step)

    def _ordered(self, epoch: int) -> torch.Tensor:
        import torch

        draws = generator(self.seed, epoch, ORDER)
        if self._chances is None:
            return torch.randperm(self.rows, generator=draws)
        return torch.multinomial(self._chances, self.rows, replacement=True, generator=draws)

    def _rows_of(self, step: int) -> torch.Tensor:
        """Return the rows of a step, over all processes, sorted: the order inside a batch has no meaning."""
        if self._order is None:
            raise AssertionError("no epoch is open")
        size = self.recipe.batch_size
        return self._order[step * size : (step + 1) * size].sort().values

    def _own(self) -> slice:
        """Return which of a step's rows are this process's own."""
        return slice(self.world.rank, None, self.world.size)

    def _batch(self, images: torch.Tensor, epoch: int, step: int) -> Batch:
        if self._draws is None:
            raise AssertionError("no epoch is open")
        rows = self._rows_of(step)
        known = self.objective.known(self.targets[rows]) / self.world.size
        if not mixes(self.recipe.augment):
            rows = rows[self._own()]
        return make_batch(
            images,
            rows,
            self.targets[rows],
            self._draws.take(rows),
            self.recipe.augment,
            size=self.size,
            seed=step_seed(self.seed, epoch, step),
            known=known,
            own=self._own(),
        )


def _chances(dataset: Dataset) -> torch.Tensor:
    """Return how likely each row is drawn: every stratum alike, and rows without a label as an average one."""
    import numpy as np
    import torch

    labels = np.asarray(dataset.labels("train"))
    counts = np.bincount(labels, minlength=max(1, len(dataset.strata or dataset.classes)))
    chances: Any = (1.0 / counts[labels]) / (counts > 0).sum()
    average = np.full(dataset.unlabelled, 1.0 / len(labels))
    return torch.from_numpy(np.concatenate([chances, average]))
