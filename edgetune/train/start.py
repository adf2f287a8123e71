"""A network with its pretrained weights, ready to learn; and what it sees of the images before it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Checkpoint, Dataset, Features
from edgetune.determinism import deterministic
from edgetune.errors import WeightsError
from edgetune.train import weights as pretrained
from edgetune.train.described import network_spec
from edgetune.train.network import (
    NetworkSpec,
    Normalisation,
    create_network,
    normalisation,
    require_known,
)
from edgetune.train.probe import extract_features
from edgetune.train.setting import chosen_device, in_words, memory_remedy, resolved_threads

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.progress import Progress
    from edgetune.recipe import ModelRecipe, TrainRecipe
    from edgetune.train.weights import Weights

__all__ = ["Start", "features", "load_network", "load_start"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """A network as fine-tuning finds it.

    Attributes:
        network: with a fresh head of the right width.
        spec: what builds it again.
        weights: where its weights came from.
        normalise: what they expect of images.
    """

    network: nn.Module
    spec: NetworkSpec
    weights: Weights
    normalise: Normalisation

    @property
    def fitting(self) -> bool:
        """Whether the statistics of its batch norms fit the network: they do not fit random weights or other activations."""
        return self.weights.path is not None and not self.spec.swapped


def load_start(model: ModelRecipe, dataset: Dataset, functions: str, device: torch.device) -> Start:
    """Return the network that a recipe asks for.

    Args:
        model: backbone, weights and ends.
        dataset: its heads and the shape of its images.
        functions: the activation functions that the target has integer kernels for; see the profile.
        device: where the network goes.

    Raises:
        WeightsError: the backbone or its weights are not known, not at hand, or do not fit.
    """
    require_known(model.backbone)
    weights = pretrained.resolve(model)
    shape = dataset.preprocessing
    spec = network_spec(model, image_size=shape.height, channels=shape.channels, functions=functions)
    network = create_network(spec, len(dataset.classes))
    pretrained.load_into(network, weights, spec)
    return Start(network=network.to(device), spec=spec, weights=weights, normalise=normalisation(spec))


def features(
    dataset: Dataset,
    model: ModelRecipe,
    recipe: TrainRecipe,
    *,
    functions: str,
    seed: int,
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Features:
    """Write what a frozen backbone sees of the train and validation images, as the device will see them.

    Args:
        dataset: the images.
        model: the backbone; its head has no part in this.
        recipe: where to compute.
        functions: see `load_start`.
        seed: of what is random about the backbone; nothing, with pretrained weights.
        folder: where `train.npy` and `val.npy` are written.
        progress: told of each batch.
        stop: asked after each batch; true raises `Interrupted`.

    Raises:
        WeightsError: as `load_start`.
        Interrupted: `stop` said so.
    """
    import numpy as np

    device = chosen_device(recipe)
    with deterministic(resolved_threads(recipe), seed, device), memory_remedy(recipe):
        start = load_start(model, dataset, functions, device)
        progress.line(f"{model.backbone}, weights from {start.weights.reference}, {in_words(device)}")
        width = 0
        for split in ("train", "val"):
            found = extract_features(
                start.network,
                start.normalise,
                dataset.images(split),
                device=device,
                progress=progress,
                label=f"features of the {split} images",
                stop=stop,
            )
            np.save(folder / f"{split}.npy", found.numpy(), allow_pickle=False)
            width = found.shape[1]
    return Features(backbone=model.backbone, weights=start.weights.to_json(), width=width).at(folder)


def load_network(checkpoint: Checkpoint) -> nn.Module:
    """Return the trained network, in evaluation mode on the CPU.

    Raises:
        WeightsError: the file does not fit the architecture that the checkpoint names.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = create_network(NetworkSpec.from_json(checkpoint.network), len(checkpoint.classes))
    try:
        network.load_state_dict(load_file(checkpoint.weights_path))
    except (SafetensorError, RuntimeError, OSError) as fault:
        raise WeightsError(f"{checkpoint.weights_path.name} does not fit {checkpoint.backbone}: {fault}") from fault
    return network.eval()
