"""What one step does to the network: forward, loss, gradients, the optimizer's move."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgetune.train.distributed import World, averaged, mean_statistics, world
from edgetune.train.network import Normalisation
from edgetune.train.objective import Objective
from edgetune.train.optimizer import create_optimizer, set_rates
from edgetune.train.step import Batch
from edgetune.train.strategy import Anchor, Strategy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.recipe import TrainRecipe
    from edgetune.train.speed import Speed
    from edgetune.train.teaching import Teaching

__all__ = ["Learner"]


class Learner:
    """A network with its optimizer.

    Args:
        network: with its pretrained weights: L2-SP pulls towards them.
        normalise: of the pretrained weights.
        recipe: with every auto decided.
        objective: the loss of the labels.
        device: where to compute.
        speed: how.
        teaching: the teacher, if there is one.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: Normalisation,
        recipe: TrainRecipe,
        objective: Objective,
        *,
        device: torch.device,
        speed: Speed,
        teaching: Teaching | None = None,
    ) -> None:
        import torch

        self.network, self.normalise, self.recipe, self.objective = network, normalise, recipe, objective
        self.device, self.speed, self.teaching = device, speed, teaching
        self.world: World = world()
        self.strategy = Strategy(network, recipe)
        groups = self.strategy.parameter_groups()
        if teaching is not None and teaching.projector is not None:
            own = {"params": list(teaching.projector.parameters()), "lr": recipe.lr, "peak_lr": recipe.lr, "weight_decay": 0.0}
            groups.append(own)
        self.optimizer = create_optimizer(groups, recipe)
        self.anchor = Anchor(self.strategy.stages, groups, recipe.l2_sp)
        self.scaler = torch.amp.GradScaler(device.type, enabled=speed.dtype == "float16")
        self.resting: list[nn.Module] = []
        self.forward: Any = None

    def open_epoch(self, epoch: int, epochs: int) -> None:
        """Settle which parameters learn in an epoch, counted from 0 of `epochs`."""
        changed = self.strategy.apply(epoch, epochs)
        if changed or self.forward is None:
            self.forward = self.speed.prepare(self.network, self.world)
        self.resting = self.strategy.resting()

    def step(self, batch: Batch, factor: float, *, momentum: float | None = None, view: int = 0) -> float:
        """Learn from a batch; return its loss over all processes. If that is not a number, nothing was learnt.

        Args:
            batch: this process's part of the step.
            factor: of the peak learning rates.
            momentum: where the schedule moves it.
            view: the number that the views are drawn from.
        """
        self._train_mode()
        set_rates(self.optimizer, factor, momentum)
        self.optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for part in batch.parts(self.recipe.accumulate):
            loss = self._loss(part, view)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            value += loss.item()
        value = averaged(value)
        if math.isfinite(value):
            self._update(factor)
        return value

    def _loss(self, batch: Batch, view: int) -> torch.Tensor:
        with self.speed.autocast(self.device):
            logits = self.forward(self.speed.arranged(self.normalise(batch.views)))
        logits = logits.float()
        if self.teaching is None:
            return self.objective.loss(logits, batch.targets, mixture=batch.mixture, known=batch.known)
        taught = self.teaching.loss(logits, batch, view)
        if self.teaching.label_weight == 0:
            return taught
        labels = self.objective.loss(logits, batch.targets, mixture=batch.mixture, known=batch.known)
        return self.teaching.label_weight * labels + taught

    def _update(self, factor: float) -> None:
        """Move the weights along the gradients."""
        from torch.nn.utils import clip_grad_norm_

        if self.teaching is not None:
            self.teaching.average_gradients()
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.anchor.pull(factor)
        mean_statistics(self.network)

    def _train_mode(self) -> None:
        """Switch the network to training; frozen batch norms go on normalising by the pretrained statistics.

        Those of a few thousand small images are worse: on the two data sets measured here a linear probe loses 7 and 26 points
        with them.
        """
        from torch import nn

        self.network.train()
        modules = self.network.modules() if self.recipe.batch_norm == "frozen" else self.resting
        for module in modules:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
