"""Fine-tuning of all layers: AdamW, layer-wise learning rates, warm-up and cosine, an average of weights, early stopping.

Every random draw of a step comes from (seed, epoch, step), so a run resumed from any step goes on exactly as it would have.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.errors import Interrupted, TrainingDiverged
from edgetune.train.augment import augment, mix
from edgetune.train.evaluate import evaluate
from edgetune.train.network import Normalisation
from edgetune.train.schedule import lr_factor, parameter_groups
from edgetune.train.soup import EpochMean

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.artefacts import Dataset
    from edgetune.progress import Progress
    from edgetune.recipe import TrainRecipe
    from edgetune.train.state import StateStore

__all__ = ["Epoch", "FineTuning"]

SAVE_EVERY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of the history."""

    epoch: int
    train_loss: float
    val_loss: float
    val_top1_percent: float
    lr: float


class FineTuning:
    """One run of fine-tuning, which can be stopped after any step and resumed.

    Args:
        network: with the head of the linear probe.
        normalise: of the pretrained weights.
        dataset: the images.
        recipe: epochs must be a number, `augment.flip` decided.
        seed: where all randomness comes from.
        device: where to train.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: Normalisation,
        dataset: Dataset,
        recipe: TrainRecipe,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        import numpy as np
        import torch

        self.network, self.normalise, self.dataset, self.recipe = network, normalise, dataset, recipe
        self.seed, self.device = seed, device
        self.steps_per_epoch = max(1, dataset.counts["train"] // recipe.batch_size)
        self.epochs = int(recipe.epochs)
        # Opened once, not at each step.
        self.sources, self.labels = dataset.source_images(), np.array(dataset.labels("train"))
        self.optimizer = torch.optim.AdamW(parameter_groups(network, recipe), betas=(0.9, 0.999))
        self.average = copy.deepcopy(network).eval()
        self.best = copy.deepcopy(network.state_dict())
        self.mean = EpochMean()
        self.history: list[Epoch] = []
        self.epoch = self.step = self.best_epoch = self.averaged_epochs = 0
        self.val_top1_percent = 0.0
        self.loss_sum = 0.0
        self.use_amp = recipe.amp and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.use_amp)

    def begin(self) -> Epoch:
        """Return epoch 0, the linear probe, which is the best so far."""
        loss, top1 = evaluate(self.network, self.normalise, self.dataset.images("val"), self.dataset.labels("val"), self.device)
        start = Epoch(epoch=0, train_loss=0.0, val_loss=loss, val_top1_percent=top1, lr=0.0)
        self.history = [start]
        return start

    def run(self, store: StateStore, progress: Progress, stop: Callable[[], bool]) -> None:
        """Train until the last epoch, until the patience ends, or until `stop()`.

        Raises:
            TrainingDiverged: the loss is not a number; the last good weights are kept in the state.
            Interrupted: `stop()` was true; the state is saved.
        """
        saved = time.monotonic()
        while self.epoch < self.epochs and not self._out_of_patience():
            order = self._order()
            while self.step < self.steps_per_epoch:
                self._train_step(order)
                self.step += 1
                note = f"epoch {self.epoch + 1}/{self.epochs}, loss {self.loss_sum / self.step:.3f}"
                done = self.epoch * self.steps_per_epoch + self.step
                progress.advance("fine-tuning", done, self.epochs * self.steps_per_epoch, note)
                if stop():
                    self._save(store)
                    raise Interrupted(f"interrupted in epoch {self.epoch + 1}", remedy="run the same command again to resume")
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self._save(store)
                    saved = time.monotonic()
            self._end_epoch(progress)
            self._save(store)
            saved = time.monotonic()
        self.val_top1_percent = self.history[self.best_epoch].val_top1_percent
        self._consider_mean(progress)

    def _consider_mean(self, progress: Progress) -> None:
        """Keep the mean of the epochs instead of the best of them, if its validation loss is lower."""
        if not self.recipe.average_epochs or self.mean.count < 2:
            return
        self.average.load_state_dict(self.mean.tensors)
        loss, top1 = evaluate(self.average, self.normalise, self.dataset.images("val"), self.dataset.labels("val"), self.device)
        better = loss < self.history[self.best_epoch].val_loss
        if better:
            self.best, self.averaged_epochs, self.val_top1_percent = self.mean.tensors, self.mean.count, top1
        progress.line(
            f"mean of the last {self.mean.count} epochs: validation loss {loss:.3f}, validation top-1 {top1:.2f} % "
            f"({'kept' if better else f'not better than epoch {self.best_epoch}, which is kept'})"
        )

    def best_network(self) -> nn.Module:
        """Return the network with the weights that validated best."""
        self.network.load_state_dict(self.best)
        return self.network.eval()

    def _save(self, store: StateStore) -> None:
        """Save the state, unless its weights are not numbers: a loss can be finite one step before they blow up."""
        broken = [name for name, tensor in self.network.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise self._diverged(f"weights are not finite in epoch {self.epoch + 1}: {', '.join(broken[:3])}")
        store.save(self.state())

    def _diverged(self, problem: str) -> TrainingDiverged:
        remedy = f"lower train.lr (now {self.recipe.lr:g}); the run's last good state is kept"
        return TrainingDiverged(problem, remedy=remedy)

    def _out_of_patience(self) -> bool:
        return self.epoch - self.best_epoch >= self.recipe.patience

    def _order(self) -> torch.Tensor:
        import torch

        return torch.randperm(self.dataset.counts["train"], generator=self._generator(self.epoch, 0))

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        import torch

        # Distinct for each (epoch, step) of a run, as steps are numbered from 1 and 0 is the order of the images.
        return torch.Generator().manual_seed(((self.seed * 1_000_003 + epoch) * 1_000_003 + step) % 2**63)

    def _lr_factor(self, step: int) -> float:
        now = self.epoch * self.steps_per_epoch + step
        return lr_factor(now, self.epochs * self.steps_per_epoch, self.recipe.warmup_fraction)

    def _train_step(self, order: torch.Tensor) -> None:
        import numpy as np
        import torch
        import torch.nn.functional as F

        generator = self._generator(self.epoch, self.step + 1)
        seed = int(torch.randint(2**62, (1,), generator=generator))
        torch.manual_seed(seed)
        size = self.recipe.batch_size
        # A sorted read is a forward walk through the memory-mapped file; the order inside a batch has no meaning.
        rows = order[self.step * size : (self.step + 1) * size].sort().values.numpy()
        images = torch.from_numpy(np.array(self.sources[rows])).to(self.device)
        labels = torch.from_numpy(self.labels[rows]).to(self.device)
        shape = (self.dataset.preprocessing.height, self.dataset.preprocessing.width)
        views = augment(images, self.recipe.augment, shape, generator)
        views, partners, share = mix(views, self.recipe.augment.mixup, seed)
        views = self.normalise(views)
        self._train_mode()
        factor = self._lr_factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        with torch.autocast(self.device.type, enabled=self.use_amp):
            logits = self.network(views)
            loss = share * F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            if share < 1:
                loss = loss + (1 - share) * F.cross_entropy(
                    logits, labels[partners], label_smoothing=self.recipe.label_smoothing
                )
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value} in epoch {self.epoch + 1}, step {self.step + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.loss_sum += value
        self._update_average()

    def _train_mode(self) -> None:
        """Switch the network to training; frozen batch norms go on normalising by the pretrained statistics.

        Those of a few thousand small images are worse: on the two data sets measured here a linear probe loses 7 and 26 points
        with them.
        """
        from torch import nn

        self.network.train()
        if self.recipe.batch_norm == "frozen":
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _update_average(self) -> None:
        """Move the averaged weights towards the current ones; the span grows from 0, so that early weights fade."""
        import torch

        now = self.epoch * self.steps_per_epoch + self.step + 1
        span = self.recipe.ema_epochs * self.steps_per_epoch
        decay = min(1 - 1 / max(1.0, span), now / (now + 10)) if span else 0.0
        with torch.no_grad():
            for kept, current in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                if kept.is_floating_point():
                    kept.lerp_(current, 1 - decay)
                else:
                    kept.copy_(current)

    def _end_epoch(self, progress: Progress) -> None:
        loss, top1 = evaluate(self.average, self.normalise, self.dataset.images("val"), self.dataset.labels("val"), self.device)
        # Not the optimizer's, which does not hold the last rate when a run resumes right here.
        lr = self.recipe.lr * self._lr_factor(self.step - 1)
        self.epoch += 1
        line = Epoch(
            epoch=self.epoch,
            train_loss=self.loss_sum / self.steps_per_epoch,
            val_loss=loss,
            val_top1_percent=top1,
            lr=lr,
        )
        self.history.append(line)
        self.step, self.loss_sum = 0, 0.0
        self.mean.add(self.average.state_dict(), epoch=self.epoch, epochs=self.epochs)
        best = min(self.history, key=lambda e: (-e.val_top1_percent, e.val_loss))
        if best.epoch == self.epoch:
            self.best, self.best_epoch = copy.deepcopy(self.average.state_dict()), self.epoch
        progress.line(
            f"epoch {line.epoch}/{self.epochs}: train loss {line.train_loss:.3f}, validation loss {loss:.3f}, "
            f"validation top-1 {top1:.2f} %{' (best)' if best.epoch == self.epoch else ''}"
        )

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return everything that the rest of the run depends on: tensors by name, and plain values."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.mean.tensors.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "best_epoch": self.best_epoch,
            "mean_count": self.mean.count,
            "history": [vars(line) for line in self.history],
            "scaler": self.scaler.state_dict(),
        }
        return tensors, values

    def restore(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Take up a state that `state` returned."""

        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self.network.load_state_dict(under("network."))
        self.average.load_state_dict(under("average."))
        self.best = under("best.")
        self.mean.tensors, self.mean.count = under("mean."), values["mean_count"]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in under("optimizer.").items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.scaler.load_state_dict(values["scaler"])
        self.epoch, self.step = values["epoch"], values["step"]
        self.loss_sum, self.best_epoch = values["loss_sum"], values["best_epoch"]
        self.history = [Epoch(**line) for line in values["history"]]
