"""Two trained networks on the same test images: what a teacher gave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgetune.artefacts import Ablation, Checkpoint, Dataset
from edgetune.determinism import deterministic
from edgetune.recipe import TrainRecipe
from edgetune.train.evaluate import predict
from edgetune.train.network import Normalisation
from edgetune.train.scores import score_heads
from edgetune.train.setting import chosen_device, resolved_threads
from edgetune.train.start import load_network

__all__ = ["compare"]


def compare(networks: Mapping[str, Checkpoint], dataset: Dataset, recipe: TrainRecipe, folder: Path) -> Ablation:
    """Return the figures of two networks on the test set.

    Args:
        networks: `with` the teacher and `without`.
        dataset: its test images.
        recipe: where to compute.
        folder: of the value.
    """
    device = chosen_device(recipe)
    targets = dataset.targets("test")
    outputs = {}
    with deterministic(resolved_threads(recipe), 0, device):
        for name, checkpoint in networks.items():
            normalise = Normalisation(mean=checkpoint.mean, std=checkpoint.std)
            network = load_network(checkpoint).to(device)
            outputs[name] = predict(network, normalise, dataset.images("test"), device).numpy()
    figures = {name: score_heads(dataset.heads, logits, targets, 0.0).metrics for name, logits in outputs.items()}
    gained = lost = None
    if dataset.is_classifier:
        right = {name: logits.argmax(axis=1) == targets[:, 0] for name, logits in outputs.items()}
        gained, lost = int((right["with"] & ~right["without"]).sum()), int((right["without"] & ~right["with"]).sum())
    return Ablation(taught=figures["with"], plain=figures["without"], gained=gained, lost=lost, images=len(targets)).at(folder)
