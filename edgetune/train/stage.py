"""The stage: images and a recipe in, a checkpoint out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Checkpoint, Dataset
from edgetune.device.environment import processor_facts
from edgetune.errors import TargetError, UsageError, WeightsError
from edgetune.files import write_atomic
from edgetune.train import weights as pretrained
from edgetune.train.augment import without_mirroring
from edgetune.train.finetune import FineTuning
from edgetune.train.memory import keep_freed_memory
from edgetune.train.network import create_network, head_of, model_options, normalisation, require_known
from edgetune.train.probe import extract_features, fit_probe
from edgetune.train.schedule import auto_epochs
from edgetune.train.state import StateStore

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.progress import Progress
    from edgetune.recipe import ModelRecipe, TrainRecipe

__all__ = ["load_network", "resolved_threads", "train"]

MODEL_FILE = "model.safetensors"


def resolved_threads(recipe: TrainRecipe) -> int:
    """Return the number of CPU threads: it decides how sums are split, and so the last bits of the weights."""
    return int(processor_facts()["cores"]) if recipe.threads == "auto" else recipe.threads


def train(
    dataset: Dataset,
    model: ModelRecipe,
    recipe: TrainRecipe,
    *,
    seed: int,
    key: str,
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Fine-tune a pretrained backbone on labelled images.

    Args:
        dataset: the decoded images.
        model: the backbone and its weights.
        recipe: how to train.
        seed: where all randomness comes from.
        key: what the result depends on; a state saved under another key is not taken up.
        folder: where the checkpoint and, until it is complete, the state of the run are written.
        progress: told of each step and epoch.
        stop: asked after each step; true saves the state and raises `Interrupted`.

    Raises:
        WeightsError: the backbone or its weights are not known, not at hand, or do not fit.
        TargetError: a GPU is asked for and there is none.
        TrainingDiverged: the loss or the weights stopped being numbers.
        Interrupted: `stop` said so; the same call resumes.
    """
    device = _device(recipe)
    require_known(model.backbone)
    weights = pretrained.resolve(model)
    options = model_options(model.backbone, model, dataset.preprocessing.height)
    recipe = _decided(recipe, dataset, progress, pretrained=weights.path is not None)
    with _deterministic(resolved_threads(recipe), seed, device), _memory_remedy(recipe):
        progress.line(f"{model.backbone}, weights from {weights.reference}, {_where(device)}")
        network = create_network(model.backbone, len(dataset.classes), options).to(device)
        head_of(network)
        pretrained.load_into(network, weights)
        run = FineTuning(network, normalisation(model.backbone), dataset, recipe, seed=seed, device=device)
        store = StateStore(folder, key)
        state = store.load(progress)
        if state:
            run.restore(*state)
            progress.line(f"resumed after epoch {run.epoch}, step {run.step}")
        else:
            _begin(run, recipe, progress, stop, probe=weights.path is not None and recipe.probe_iterations > 0)
        run.run(store, progress, stop)
        checkpoint = _write(run, model, options, weights, folder)
        store.clear()
    return checkpoint


def _device(recipe: TrainRecipe) -> torch.device:
    import torch

    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise TargetError("train.device = cuda, but torch finds no GPU here", remedy="use train.device = auto or cpu")
    use_gpu = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def _where(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"on {torch.cuda.get_device_name(device)}"
    return f"on the CPU with {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


@contextmanager
def _deterministic(threads: int, seed: int, device: torch.device) -> Iterator[None]:
    """Fix the threads, the algorithms and the seed; what the process had before comes back afterwards."""
    import torch

    threads_before, mode_before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    if device.type == "cuda":
        # Without a fixed workspace cuBLAS may sum in another order; it is read when the GPU is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    else:
        keep_freed_memory()
    torch.set_num_threads(threads)
    # A few CUDA kernels have no deterministic twin: there torch warns instead of giving up.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_deterministic_debug_mode(mode_before)


@contextmanager
def _memory_remedy(recipe: TrainRecipe) -> Iterator[None]:
    """Say what to do when a GPU's memory does not suffice: another batch size is another run, so it is not changed here."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as fault:
        raise UsageError(
            f"the GPU's memory does not suffice for batches of {recipe.batch_size} images",
            remedy=f"set train.batch_size = {max(2, recipe.batch_size // 2)}, or choose a smaller data.image_size or backbone",
        ) from fault


def _decided(recipe: TrainRecipe, dataset: Dataset, progress: Progress, *, pretrained: bool) -> TrainRecipe:
    """Return the recipe with every auto decided."""
    images = dataset.counts["train"]
    epochs = auto_epochs(images) if recipe.epochs == "auto" else recipe.epochs
    # Batch norm learns nothing from a batch of one, and a batch larger than the set would never be full.
    batch_size = min(recipe.batch_size, max(2, images))
    if batch_size < recipe.batch_size:
        progress.line(f"warning: batches of {batch_size} images instead of {recipe.batch_size}: there are no more to train on")
    batch_norm = recipe.batch_norm
    if batch_norm == "auto":
        batch_norm = "frozen" if pretrained else "adapt"
    augment = without_mirroring(recipe.augment, dataset.source)
    return recipe.model_copy(update={"epochs": epochs, "batch_size": batch_size, "augment": augment, "batch_norm": batch_norm})


def _begin(run: FineTuning, recipe: TrainRecipe, progress: Progress, stop: Callable[[], bool], *, probe: bool) -> None:
    if probe:
        _probe(run, recipe, progress, stop)
    start = run.begin()
    what = "linear probe" if probe else "before fine-tuning, with a random head"
    progress.line(f"{what}: validation loss {start.val_loss:.3f}, validation top-1 {start.val_top1_percent:.2f} %")


def _probe(run: FineTuning, recipe: TrainRecipe, progress: Progress, stop: Callable[[], bool]) -> None:
    """Fit the head to the frozen backbone's features of the images as the device will see them."""
    import torch

    parts = {}
    for split in ("train", "val"):
        features = extract_features(
            run.network,
            run.normalise,
            run.dataset.images(split),
            device=run.device,
            progress=progress,
            label=f"features of the {split} images",
            stop=stop,
        )
        parts[split] = features, torch.from_numpy(run.dataset.labels(split).copy())
    fit_probe(
        run.network,
        parts["train"],
        parts["val"],
        iterations=recipe.probe_iterations,
        label_smoothing=recipe.label_smoothing,
    )
    run.average.load_state_dict(run.network.state_dict())
    run.best = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}


def _write(
    run: FineTuning, model: ModelRecipe, options: dict[str, Any], weights: pretrained.Weights, folder: Path
) -> Checkpoint:
    import torch
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in run.best_network().state_dict().items()}
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"the trained weights are not finite: {', '.join(broken[:5])}", remedy="lower train.lr")
    write_atomic(folder / MODEL_FILE, save(tensors))
    lines = "".join(json.dumps(vars(line), sort_keys=True) + "\n" for line in run.history)
    write_atomic(folder / "history.jsonl", lines.encode())
    return Checkpoint(
        backbone=model.backbone,
        classes=run.dataset.classes,
        preprocessing=run.dataset.preprocessing,
        mean=run.normalise.mean,
        std=run.normalise.std,
        model_options=options,
        weights=weights.to_json(),
        val_top1_percent=run.val_top1_percent,
        best_epoch=run.best_epoch,
        averaged_epochs=run.averaged_epochs,
        epochs=run.epoch,
        warnings=_warnings(run),
    ).at(folder)


def _warnings(run: FineTuning) -> tuple[str, ...]:
    found = []
    chance = 100.0 * max(run.dataset.class_counts["val"]) / max(1, run.dataset.counts["val"])
    if run.val_top1_percent <= chance:
        what = "naming one class every time"
        found.append(f"the network learned nothing: it does no better on the validation set than {what} ({chance:.1f} %)")
    if run.epochs and run.best_epoch == 0 and not run.averaged_epochs:
        found.append("fine-tuning did not improve on the weights that it began with (epoch 0), which were kept")
    return tuple(found)


def load_network(checkpoint: Checkpoint) -> nn.Module:
    """Return the trained network, in evaluation mode on the CPU.

    Raises:
        WeightsError: the file does not fit the architecture that the checkpoint names.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = create_network(checkpoint.backbone, len(checkpoint.classes), checkpoint.model_options)
    try:
        network.load_state_dict(load_file(checkpoint.weights_path))
    except (SafetensorError, RuntimeError, OSError) as fault:
        raise WeightsError(f"{checkpoint.weights_path.name} does not fit {checkpoint.backbone}: {fault}") from fault
    return network.eval()
