"""Fine-tuning: the loop over epochs and steps, averages of weights, validation, early stopping.

A run can be stopped after any step and resumed: `snapshot.py` says what it consists of.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgetune.errors import Interrupted, TrainingDiverged
from edgetune.train.average import RunningAverage
from edgetune.train.clock import Clock
from edgetune.train.distributed import agreed, anyone, on_first, world
from edgetune.train.evaluate import predict
from edgetune.train.feed import Feed
from edgetune.train.history import Epoch, validated, watched
from edgetune.train.learner import Learner
from edgetune.train.network import Normalisation
from edgetune.train.objective import Objective
from edgetune.train.schedule import cycled_momentum, lr_factor
from edgetune.train.scores import Scores
from edgetune.train.selection import Candidate, chosen
from edgetune.train.snapshot import snapshot
from edgetune.train.soup import EpochMean
from edgetune.train.step import Batch, step_seed
from edgetune.train.watch import Nobody

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.artefacts import Dataset
    from edgetune.progress import Progress
    from edgetune.recipe import TrainRecipe
    from edgetune.train.speed import Speed
    from edgetune.train.state import StateStore
    from edgetune.train.teaching import Teaching
    from edgetune.train.watch import Watch

__all__ = ["FineTuning"]

SAVE_EVERY_S = 60.0


class FineTuning:
    """One run of fine-tuning.

    Args:
        network: with its pretrained weights and, if there was a linear probe, its head.
        normalise: of the pretrained weights.
        dataset: the images.
        recipe: epochs must be a number, `augment.flip` and `batch_norm` decided.
        objective: the loss of the labels.
        seed: where all randomness comes from.
        device: where to train.
        speed: how the device computes.
        teaching: the teacher, if there is one.
        watch: told of steps and epochs.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: Normalisation,
        dataset: Dataset,
        recipe: TrainRecipe,
        objective: Objective,
        *,
        seed: int,
        device: torch.device,
        speed: Speed,
        teaching: Teaching | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.network, self.normalise, self.dataset, self.recipe = network, normalise, dataset, recipe
        self.objective, self.seed, self.device, self.speed = objective, seed, device, speed
        self.watch = watch or Nobody()
        self.learner = Learner(network, normalise, recipe, objective, device=device, speed=speed, teaching=teaching)
        self.teaching = teaching
        self.feed = Feed(dataset, recipe, objective, seed=seed, device=device)
        self.steps_per_epoch = self.feed.steps_per_epoch
        self.epochs = 0 if recipe.strategy == "linear-probe" else int(recipe.epochs)
        self.average = RunningAverage(network, recipe.ema_epochs * self.steps_per_epoch)
        self.best: Mapping[str, torch.Tensor] = copy.deepcopy(network.state_dict())
        self.mean = EpochMean()
        self.clock = Clock(self.epochs * self.steps_per_epoch, recipe.time_budget_s)
        self.history: list[Epoch] = []
        self.epoch = self.step = self.best_epoch = self.averaged_epochs = 0
        self.loss_sum = self.factor = 0.0
        self.final: dict[str, float] = {}
        self.cut_short = ""
        self.stepped_s = time.monotonic()

    # ---- before and after

    def begin(self) -> Epoch:
        """Return epoch 0, the network as it is before fine-tuning, which is the best so far."""
        began = time.monotonic()
        scores = self._validate(self.network)
        self.clock.validation_s = time.monotonic() - began
        start = Epoch(
            epoch=0, train_loss=None, val_loss=scores.loss, val_score=scores.score, val_metrics=scores.metrics, lr=0.0
        )
        self.history = [start]
        self.watch.epoch(0, watched(start))
        self.average = RunningAverage(self.network, self.recipe.ema_epochs * self.steps_per_epoch)
        self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        return start

    def best_network(self) -> nn.Module:
        """Return the network with the weights that are kept."""
        self.network.load_state_dict(self.best)
        return self.network.eval()

    def val_logits(self, network: nn.Module) -> torch.Tensor:
        """Return a network's logits on the validation set: `[N, C]`, on the CPU."""
        return predict(network, self.normalise, self.dataset.images("val"), self.device, shared=True)

    def _validate(self, network: nn.Module) -> Scores:
        return self.objective.scores(self.val_logits(network), self.dataset.targets("val"))

    # ---- the loop

    def run(self, store: StateStore, progress: Progress, stop: Callable[[], bool]) -> None:
        """Train until the last epoch, until the patience or the time budget ends, or until `stop()`.

        Raises:
            TrainingDiverged: the loss is not a number; the last good weights are kept in the state.
            Interrupted: `stop()` was true; the state is saved.
        """
        self.clock.start()
        saved = time.monotonic()
        while self.epoch < self.epochs and not self._out_of_patience() and not self._out_of_time():
            self.learner.open_epoch(self.epoch, self.epochs)
            for batch in self.feed.stream(self.epoch, self._view(), self.step):
                self._train_step(batch)
                self.step += 1
                self._tell(progress)
                if anyone(stop()):
                    self._save(store)
                    raise Interrupted(f"interrupted in epoch {self.epoch + 1}", remedy="run the same command again to resume")
                if self._out_of_time():
                    break
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self._save(store)
                    saved = time.monotonic()
            self._end_epoch(progress)
            self._save(store)
            saved = time.monotonic()
        self._choose(progress)

    def _out_of_patience(self) -> bool:
        return self.epoch - self.best_epoch >= self.recipe.patience

    def _out_of_time(self) -> bool:
        if self.recipe.time_budget_s is None:
            return False
        over = anyone(self.clock.is_over(self.steps_done)) and self.steps_done < self.clock.steps
        # Asked again after the epoch's end, this would count the epoch as a whole one.
        if over and not self.cut_short:
            self.cut_short = f"after {self.steps_done / self.steps_per_epoch:.1f} of {self.epochs} epochs"
        return over

    @property
    def steps_done(self) -> int:
        """Steps of the whole run so far."""
        return self.epoch * self.steps_per_epoch + self.step

    def _view(self) -> int:
        """Return the number that the epoch's random views are drawn from: a teacher may want some of them to come again."""
        return self.epoch if self.teaching is None else self.teaching.view(self.epoch)

    def _train_step(self, batch: Batch) -> None:
        import torch

        # Each process drops other units, as it sees other images.
        torch.manual_seed(step_seed(self.seed, self.epoch, self.step) + world().rank)
        position = agreed(self.clock.position(self.steps_done))
        self.factor = factor = lr_factor(position, self.clock.steps, self.recipe)
        momentum = cycled_momentum(position, self.clock.steps, self.recipe)
        value = self.learner.step(batch, factor, momentum=momentum, view=self.feed.view)
        if not math.isfinite(value):
            raise self._diverged(f"the loss is not a number in epoch {self.epoch + 1}, step {self.step + 1}")
        self.loss_sum += value
        self.average.update(self.steps_done + 1)
        now = time.monotonic()
        pace = self.recipe.batch_size / max(now - self.stepped_s, 1e-9)
        self.stepped_s = now
        values = {"train/loss": value, "train/lr": self.recipe.lr * factor, "train/images_per_s": pace}
        self.watch.step(self.steps_done + 1, values)

    def _end_epoch(self, progress: Progress) -> None:
        scores = self._validate(self.average.network)
        steps, self.epoch = self.step, self.epoch + 1
        line = Epoch(
            epoch=self.epoch,
            train_loss=self.loss_sum / max(1, steps),
            val_loss=scores.loss,
            val_score=scores.score,
            val_metrics=scores.metrics,
            lr=self.recipe.lr * self.factor,
        )
        self.history.append(line)
        self.step, self.loss_sum = 0, 0.0
        self.mean.add(self.average.network.state_dict(), epoch=self.epoch, epochs=self.epochs)
        best = min(self.history, key=lambda e: (-e.val_score, e.val_loss))
        if best.epoch == self.epoch:
            self.best, self.best_epoch = copy.deepcopy(self.average.network.state_dict()), self.epoch
        self.watch.epoch(self.epoch, watched(line))
        progress.line(
            f"epoch {line.epoch}/{self.epochs}: train loss {line.train_loss:.3f}, {validated(scores)}"
            f"{' (best)' if best.epoch == self.epoch else ''}"
        )

    def _choose(self, progress: Progress) -> None:
        """Keep what the run ended with, unless its best epoch is better than that by more than chance explains.

        A run that ran out of patience is not at the end of its schedule: it goes back to its best epoch.
        """
        if not self.epoch:
            self.final = self.history[0].val_metrics
            return
        ended = copy.deepcopy(self.average.network.state_dict())
        best = last = self._candidate(self.best, self.best_epoch)
        out_of_patience = self.epoch < self.epochs and not self.cut_short
        if self.best_epoch < self.epoch and not out_of_patience:
            last = self._candidate(ended, self.epoch)
        averaged = self.recipe.average_epochs and self.mean.count > 1
        mean = self._candidate(self.mean.tensors, self.epoch, self.mean.count) if averaged else None
        kept, reasons = chosen(best, last, mean, self.dataset.targets("val"), self.objective.heads)
        for reason in reasons:
            progress.line(reason)
        self.best, self.best_epoch = kept.state, kept.epoch
        self.averaged_epochs, self.final = kept.averaged, kept.scores.metrics

    def _candidate(self, state: Mapping[str, torch.Tensor], epoch: int, averaged: int = 0) -> Candidate:
        self.average.network.load_state_dict(state)
        logits = self.val_logits(self.average.network)
        scores = self.objective.scores(logits, self.dataset.targets("val"))
        outputs = self.objective.in_units(logits).numpy()
        return Candidate(state=state, epoch=epoch, averaged=averaged, outputs=outputs, scores=scores)

    def _save(self, store: StateStore) -> None:
        """Save the state, unless its weights are not numbers: a loss can be finite one step before they blow up."""
        broken = [name for name, tensor in self.network.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise self._diverged(f"weights are not finite in epoch {self.epoch + 1}: {', '.join(broken[:3])}")
        if on_first():
            store.save(snapshot(self))

    def _diverged(self, problem: str) -> TrainingDiverged:
        remedy = f"lower train.lr (now {self.recipe.lr:g}); the run's last good state is kept"
        return TrainingDiverged(problem, remedy=remedy)

    def _tell(self, progress: Progress) -> None:
        note = f"epoch {self.epoch + 1}/{self.epochs}, loss {self.loss_sum / self.step:.3f}"
        progress.advance("fine-tuning", self.steps_done, self.epochs * self.steps_per_epoch, note)
