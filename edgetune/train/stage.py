"""The stage: images and a recipe in, a checkpoint out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Checkpoint, Dataset
from edgetune.determinism import deterministic
from edgetune.device.heads import targets_of
from edgetune.errors import WeightsError
from edgetune.files import write_atomic
from edgetune.progress import Silent
from edgetune.train.distributed import on_first, share, together
from edgetune.train.explain import explain_history
from edgetune.train.finetune import FineTuning
from edgetune.train.job import TrainJob
from edgetune.train.network import head_of
from edgetune.train.objective import fold_units
from edgetune.train.opening import begin, decided, opened, settings_of
from edgetune.train.scores import choose_thresholds
from edgetune.train.setting import chosen_device, in_words, memory_remedy, resolved_threads
from edgetune.train.snapshot import restore
from edgetune.train.start import Start, load_start
from edgetune.train.state import StateStore
from edgetune.train.watch import Nobody

if TYPE_CHECKING:
    from edgetune.progress import Progress
    from edgetune.train.watch import Watch

__all__ = ["TrainJob", "train", "work"]

MODEL_FILE = "model.safetensors"


def train(
    job: TrainJob,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
    open_watch: Callable[[int, Mapping[str, Any]], Watch] = lambda step, settings: Nobody(),
) -> Checkpoint:
    """Fine-tune a pretrained backbone on labelled images.

    Args:
        job: what to train. If there are several processes, the others are called to the same job.
        progress: told of each step and epoch.
        stop: asked after each step; true saves the state and raises `Interrupted`.
        open_watch: from the first step and the settings to who is told of steps and epochs.

    Raises:
        WeightsError: the backbone or its weights are not known, not at hand, or do not fit.
        UsageError: the recipe asks for what this network or these images do not have.
        TargetError: a GPU is asked for and there is none.
        TrainingDiverged: the loss or the weights stopped being numbers.
        Interrupted: `stop` said so; the same call resumes.
    """
    share(job)
    with together():
        return _train(job, progress, stop, open_watch)


def work(stop: Callable[[], bool]) -> None:
    """Train with the others, in any process but the first, as often as the first one trains; return when it is done."""
    while (job := share(None)) is not None:
        with together():
            _train(job, Silent(), stop, lambda step, settings: Nobody())


def _train(
    job: TrainJob,
    progress: Progress,
    stop: Callable[[], bool],
    open_watch: Callable[[int, Mapping[str, Any]], Watch],
) -> Checkpoint:
    device = chosen_device(job.recipe)
    with deterministic(resolved_threads(job.recipe), job.seed, device), memory_remedy(job.recipe):
        start = load_start(job.model, job.dataset, job.functions, device)
        recipe = decided(job.recipe, job.dataset, progress, fitting=start.fitting)
        progress.line(f"{job.model.backbone}, weights from {start.weights.reference}, {in_words(device)}")
        run = opened(job, start, recipe, device, progress)
        store = StateStore(job.folder, job.key)
        state = share(store.load(progress) if on_first() else None)
        if state:
            restore(run, state)
            progress.line(f"resumed after epoch {run.epoch}, step {run.step}")
        # Before the linear probe: whoever cannot be told must be named before work is done.
        run.watch = open_watch(run.steps_done, settings_of(run))
        complete = False
        try:
            if not state:
                begin(run, job, progress)
            run.run(store, progress, stop)
            complete = True
        finally:
            run.watch.close(complete=complete)
        checkpoint = _written(run, job, start)
        if on_first():
            store.clear()
    return checkpoint


def _written(run: FineTuning, job: TrainJob, start: Start) -> Checkpoint:
    import torch
    from safetensors.torch import save

    network = run.best_network()
    logits = run.objective.in_units(run.val_logits(network)).numpy()
    heads = choose_thresholds(run.dataset.heads, logits, run.dataset.targets("val"))
    fold_units(head_of(network), run.objective)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"the trained weights are not finite: {', '.join(broken[:5])}", remedy="lower train.lr")
    if on_first():
        write_atomic(job.folder / MODEL_FILE, save(tensors))
        lines = "".join(json.dumps(vars(line), sort_keys=True, ensure_ascii=False) + "\n" for line in run.history)
        write_atomic(job.folder / "history.jsonl", lines.encode())
    return Checkpoint(
        backbone=job.model.backbone,
        classes=run.dataset.classes,
        heads=heads,
        preprocessing=run.dataset.preprocessing,
        mean=start.normalise.mean,
        std=start.normalise.std,
        network=start.spec.to_json(),
        weights=start.weights.to_json(),
        val_metrics=run.final,
        best_epoch=run.best_epoch,
        averaged_epochs=run.averaged_epochs,
        epochs=run.epoch,
        settings=settings_of(run),
        distillation=run.teaching.summary() if run.teaching else {},
        warnings=_warnings(run),
    ).at(job.folder)


def _warnings(run: FineTuning) -> tuple[str, ...]:
    found = list(
        explain_history([vars(line) for line in run.history], chance=_chance(run.dataset), images=run.dataset.counts["val"])
    )
    if run.epochs and run.best_epoch == 0 and not run.averaged_epochs:
        found.append("fine-tuning did not improve on the weights that it began with (epoch 0), which were kept")
    if run.cut_short:
        found.append(f"the time budget of {run.recipe.time_budget_s:g} s ended training {run.cut_short}")
    return tuple(found)


def _chance(dataset: Dataset) -> float:
    """Return the validation score of who has learnt nothing: of the largest class, of labels at random, of the mean."""
    import numpy as np

    targets, parts = dataset.targets("val"), []
    for head, place in zip(dataset.heads, targets_of(dataset.heads), strict=True):
        own = targets[:, place]
        if head.kind == "single-label":
            counts = np.bincount(own[np.isfinite(own)].astype(int), minlength=1)
            parts.append(100.0 * float(counts.max()) / max(1, int(counts.sum())))
        elif head.kind == "multi-label":
            present = np.nanmean(own, axis=0)
            parts.append(100.0 * float(present[present > 0].mean()) if (present > 0).any() else 0.0)
        else:
            parts.append(0.0)
    return sum(parts) / len(parts)
