"""A run before its first step: every auto decided, the loss, the teacher, the head fitted by a linear probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, UsageError
from edgetune.recipe import TrainRecipe
from edgetune.train.augment import colour_faults, without_mirroring
from edgetune.train.distributed import share, world
from edgetune.train.finetune import FineTuning
from edgetune.train.history import in_words
from edgetune.train.job import TrainJob
from edgetune.train.objective import Objective
from edgetune.train.probe import fit_probe
from edgetune.train.schedule import auto_epochs, auto_warmup
from edgetune.train.speed import Speed, choose_speed
from edgetune.train.start import Start, load_network
from edgetune.train.strategy import wants_probe

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.artefacts import Dataset
    from edgetune.progress import Progress

__all__ = ["begin", "decided", "opened", "settings_of"]


def opened(job: TrainJob, start: Start, recipe: TrainRecipe, device: torch.device, progress: Progress) -> FineTuning:
    """Return a run before its first step.

    Args:
        job: what to train.
        start: the network with its pretrained weights.
        recipe: with every auto decided.
        device: where to train.
        progress: told what was measured.
    """
    import numpy as np

    targets = np.array(job.dataset.targets("train"))
    objective = Objective(
        job.dataset.heads,
        job.tasks,
        targets,
        label_smoothing=recipe.label_smoothing,
        balanced=recipe.balance == "weights",
    )
    speed = _speed(start, job.dataset, recipe, device, progress)
    teaching = None
    if job.teachers:
        from edgetune.train.teaching import open_teaching

        teaching = open_teaching(job, start.network, recipe, objective, device, progress, load_network)
    return FineTuning(
        speed.arrange(start.network),
        start.normalise,
        job.dataset,
        recipe,
        objective,
        seed=job.seed,
        device=device,
        speed=speed,
        teaching=teaching,
    )


def _speed(start: Start, dataset: Dataset, recipe: TrainRecipe, device: torch.device, progress: Progress) -> Speed:
    """Return how to compute; every process takes what the first one measured."""
    import torch

    shape = dataset.preprocessing
    images = torch.rand(recipe.batch_size, shape.channels, shape.height, shape.width, device=device)

    def step(network: nn.Module, speed: Speed) -> None:
        network.train()
        with speed.autocast(device):
            loss = network(speed.arranged(images)).float().square().mean()
        loss.backward()
        torch.cuda.synchronize(device)

    steps = int(recipe.epochs) * max(1, dataset.counts["train"] // recipe.batch_size)
    speed: Speed = share(choose_speed(recipe, device, step, start.network, steps=steps, progress=progress))
    return speed


def decided(recipe: TrainRecipe, dataset: Dataset, progress: Progress, *, fitting: bool) -> TrainRecipe:
    """Return the recipe with every auto decided.

    Args:
        recipe: how to train.
        dataset: the images.
        progress: told what is not as the recipe says.
        fitting: whether the statistics of the batch norms fit the network: not if its weights are random, or if its activation
            functions were exchanged.

    Raises:
        UsageError: the recipe asks for what these images do not have.
    """
    if faults := colour_faults(recipe.augment, dataset.preprocessing.channels):
        places = [Fault(where="train.augment", problem=fault) for fault in faults]
        raise UsageError("the images have no such colours to change", faults=places)
    images = dataset.counts["train"] + dataset.unlabelled
    epochs = auto_epochs(images) if recipe.epochs == "auto" else recipe.epochs
    # Batch norm learns nothing from a batch of one, and a batch larger than the set would never be full.
    processes = world().size
    batch_size = min(recipe.batch_size, max(2, images - images % processes))
    if batch_size < recipe.batch_size:
        progress.line(f"warning: batches of {batch_size} images instead of {recipe.batch_size}: there are no more to train on")
    warmup = recipe.warmup_fraction
    if warmup == "auto":
        regression = any(head.kind == "regression" for head in dataset.heads)
        warmup = auto_warmup(int(epochs) * max(1, images // batch_size), regression=regression)
    batch_norm = recipe.batch_norm
    if batch_norm == "auto":
        batch_norm = "frozen" if fitting else "adapt"
    augment = without_mirroring(recipe.augment, dataset.source)
    return recipe.model_copy(
        update={
            "epochs": epochs,
            "batch_size": batch_size,
            "augment": augment,
            "batch_norm": batch_norm,
            "warmup_fraction": warmup,
        }
    )


def begin(run: FineTuning, job: TrainJob, progress: Progress) -> None:
    """Fit the head to the features of the frozen backbone, if the strategy wants that, and validate."""
    import torch

    probe = wants_probe(run.recipe, pretrained=job.model.weights != "none")
    if probe:
        if job.features is None:
            raise ValueError("a linear probe needs the features of the frozen backbone")
        result = fit_probe(
            run.network,
            run.objective,
            (torch.from_numpy(job.features.load("train").copy()), torch.from_numpy(job.dataset.targets("train").copy())),
            (torch.from_numpy(job.features.load("val").copy()), job.dataset.targets("val")),
            iterations=run.recipe.probe_iterations,
        )
        progress.line(f"linear probe with a penalty of {result.penalty:g}")
    if world().size > 1:
        # Every process fitted the head; on unlike machines its last bits may differ.
        run.network.load_state_dict(share(run.network.state_dict()))
    start = run.begin()
    what = "linear probe" if probe else "before fine-tuning, with a random head"
    progress.line(f"{what}: validation loss {start.val_loss:.3f}, validation {in_words(start.val_metrics)}")


def settings_of(run: FineTuning) -> dict[str, Any]:
    """Return what was decided where the recipe says auto."""
    recipe = run.recipe
    return {
        "epochs": run.epochs,
        "batch_size": recipe.batch_size,
        "batch_norm": recipe.batch_norm,
        "flip": recipe.augment.flip,
        "device": run.device.type,
        "processes": world().size,
        **run.speed.to_json(),
    }
