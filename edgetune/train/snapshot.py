"""Everything that the rest of a run depends on, as tensors by name and plain values: what is written, and taken up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.train.history import Epoch
from edgetune.train.optimizer import take_state, written_state

if TYPE_CHECKING:
    import torch

    from edgetune.train.finetune import FineTuning
    from edgetune.train.state import State

__all__ = ["restore", "snapshot"]


def snapshot(run: FineTuning) -> State:
    """Return the state of a run between two steps."""
    moments, own = written_state(run.learner.optimizer)
    named = {
        "network": run.network.state_dict(),
        "average": run.average.network.state_dict(),
        "best": run.best,
        "mean": run.mean.tensors,
        "optimizer": moments,
        "projector": run.teaching.projector.state_dict() if run.teaching and run.teaching.projector else {},
    }
    tensors = {f"{group}.{name}": tensor for group, members in named.items() for name, tensor in members.items()}
    values = {
        "epoch": run.epoch,
        "step": run.step,
        "loss_sum": run.loss_sum,
        "factor": run.factor,
        "cut_short": run.cut_short,
        "best_epoch": run.best_epoch,
        "mean_count": run.mean.count,
        "history": [vars(line) for line in run.history],
        "optimizer": own,
        "scaler": run.learner.scaler.state_dict(),
        "elapsed_s": run.clock.elapsed_s,
        "validation_s": run.clock.validation_s,
    }
    return tensors, values


def restore(run: FineTuning, state: State) -> None:
    """Take up what `snapshot` returned."""
    tensors, values = state

    def under(group: str) -> dict[str, torch.Tensor]:
        prefix = f"{group}."
        return {name.removeprefix(prefix): tensor.to(run.device) for name, tensor in tensors.items() if name.startswith(prefix)}

    run.network.load_state_dict(under("network"))
    run.average.network.load_state_dict(under("average"))
    run.best = under("best")
    run.mean.tensors, run.mean.count = under("mean"), values["mean_count"]
    take_state(run.learner.optimizer, under("optimizer"), values["optimizer"])
    if run.teaching and run.teaching.projector:
        run.teaching.projector.load_state_dict(under("projector"))
    run.learner.scaler.load_state_dict(values["scaler"])
    run.epoch, run.step = values["epoch"], values["step"]
    run.loss_sum, run.best_epoch = values["loss_sum"], values["best_epoch"]
    run.factor, run.cut_short = values["factor"], values["cut_short"]
    history: list[dict[str, Any]] = values["history"]
    run.history = [Epoch(**line) for line in history]
    run.clock.spent_s, run.clock.validation_s = values["elapsed_s"], values["validation_s"]
