"""A backbone tried before it is fine-tuned: a linear probe on its features, and the bare network to see what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgetune.artefacts import Checkpoint, Dataset, Features, Head, ProbeScore
from edgetune.determinism import deterministic
from edgetune.recipe import ModelRecipe, TaskRecipe, TrainRecipe
from edgetune.train.network import head_modules
from edgetune.train.objective import Objective
from edgetune.train.probe import fit_probe
from edgetune.train.scores import score_heads
from edgetune.train.setting import resolved_threads
from edgetune.train.start import Start, load_start

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    Array = npt.NDArray[np.float32]

__all__ = ["bare_network", "probe_score", "standard_error"]

RESAMPLES = 100


def probe_score(
    features: Features,
    dataset: Dataset,
    model: ModelRecipe,
    recipe: TrainRecipe,
    *,
    functions: str,
    seed: int,
    tasks: Mapping[str, TaskRecipe],
) -> ProbeScore:
    """Return what a head on cached features reaches on the validation set.

    Args:
        features: what the frozen backbone sees of the images.
        dataset: the images' targets.
        model: the backbone and the ends of the network.
        recipe: of the probe.
        functions: the activation functions that the target has integer kernels for; see the profile.
        seed: of a head with hidden layers.
        tasks: how each head is to be learnt, by its name.

    Raises:
        WeightsError: the backbone cannot be built as the recipe asks.
    """
    import torch

    with deterministic(resolved_threads(recipe), seed, torch.device("cpu")):
        network = _untrained(model, dataset, functions).network
        targets = {split: torch.from_numpy(dataset.targets(split).copy()) for split in ("train", "val")}
        seen = {split: torch.from_numpy(features.load(split).copy()) for split in ("train", "val")}
        objective = Objective(dataset.heads, tasks, targets["train"].numpy(), label_smoothing=recipe.label_smoothing)
        result = fit_probe(
            network,
            objective,
            (seen["train"], targets["train"]),
            (seen["val"], targets["val"].numpy()),
            iterations=recipe.probe_iterations,
        )
        with torch.inference_mode():
            outputs = objective.in_units(head_modules(network).eval()(seen["val"])).numpy()
    return ProbeScore(
        backbone=model.backbone,
        weights=features.weights,
        score=result.scores.score,
        standard_error=standard_error(dataset.heads, outputs, targets["val"].numpy()),
        metrics=result.scores.metrics,
        images=len(outputs),
        penalty=result.penalty,
    )


def standard_error(heads: Sequence[Head], outputs: Array, targets: Array) -> float:
    """Return how far a score moves with the choice of images, in its unit.

    A single label has a formula: 100 sqrt(p (1 - p) / n), of k right among m images with p = (k + 2) / (m + 4) and n = m + 4
    (Agresti and Coull 1998), so that a few images that are all right do not pass for certainty. Other tasks are scored on 100
    resamples of the images (Efron 1979).

    Args:
        heads: in the order of the columns.
        outputs: `[N, C]`, see `score_heads`.
        targets: `[N, T]`, NaN where not known.
    """
    import numpy as np

    if [head.kind for head in heads] == ["single-label"]:
        labelled = np.isfinite(targets[:, 0])
        images = int(labelled.sum()) + 4
        share = (int((outputs[labelled].argmax(axis=1) == targets[labelled, 0]).sum()) + 2) / images
        return 100.0 * math.sqrt(share * (1.0 - share) / images)
    generator = np.random.default_rng(0)
    draws = (generator.integers(0, len(outputs), len(outputs)) for _ in range(RESAMPLES))
    return float(np.std([score_heads(heads, outputs[rows], targets[rows], 0.0).score for rows in draws], ddof=1))


def bare_network(
    dataset: Dataset, model: ModelRecipe, recipe: TrainRecipe, *, functions: str, seed: int
) -> tuple[Checkpoint, nn.Module]:
    """Return a network with random weights that costs what the trained one will, and what describes it to the export.

    The checkpoint is not on disk: it has no folder.

    Args:
        dataset: its heads and the shape of its images.
        model: the backbone and the ends of the network.
        recipe: how many threads.
        functions: see `probe_score`.
        seed: of the weights.

    Raises:
        WeightsError: the backbone cannot be built as the recipe asks.
    """
    import torch

    with deterministic(resolved_threads(recipe), seed, torch.device("cpu")):
        start = _untrained(model, dataset, functions)
        _vary(start.network)
    checkpoint = Checkpoint(
        backbone=model.backbone,
        classes=dataset.classes,
        heads=dataset.heads,
        preprocessing=dataset.preprocessing,
        mean=start.normalise.mean,
        std=start.normalise.std,
        network=start.spec.to_json(),
        weights=start.weights.to_json(),
        val_metrics={},
        best_epoch=0,
        epochs=0,
    )
    return checkpoint, start.network.eval()


def _vary(network: nn.Module) -> None:
    """Give every tensor of a fresh network that is one number throughout numbers of its own, as training would.

    Fresh norms and biases are ones and zeros. The export merges tensors that are alike, and layers that share one are quantized
    in another, slower, way: EfficientNet-Lite0 at 96 px then took 0.65 ms in int8 instead of 0.48.
    """
    import torch

    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(torch.rand_like(tensor), alpha=0.1)


def _untrained(model: ModelRecipe, dataset: Dataset, functions: str) -> Start:
    import torch

    return load_start(model.model_copy(update={"weights": "none"}), dataset, functions, torch.device("cpu"))
