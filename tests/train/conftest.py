"""A tiny data set of coloured shapes, and the recipes that train on it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.artefacts import Checkpoint, Dataset, Preprocessing
from edgetune.progress import Silent
from edgetune.recipe import ModelRecipe, Recipe, TrainRecipe

from .weights import plain, tensors_of

SIZE, SOURCE = 32, 36
COUNTS = {"train": 72, "val": 24, "test": 6}


class Lines:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps = 0

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        self.steps += label == "fine-tuning"

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def draw(label: int, size: int, random: np.random.Generator) -> np.ndarray:
    """A disc, a bar or a frame in the colour of its class on a noisy ground."""
    image = random.integers(60, 120, (size, size, 3)).astype(np.uint8)
    y, x = np.mgrid[:size, :size] / size - random.uniform(0.4, 0.6, (2, 1, 1))
    shape = (x**2 + y**2 < 0.08, abs(x) < 0.12, (abs(x) < 0.35) & (abs(y) < 0.35) & (abs(x) + abs(y) > 0.3))[label]
    image[shape, label] = random.integers(190, 255)
    return image


def write_dataset(folder: Path, *, source: str = "shapes", counts: dict[str, int] = COUNTS) -> Dataset:
    random = np.random.default_rng(7)
    class_counts = {}
    for split, count in counts.items():
        labels = np.arange(count) % 3
        (folder / split).mkdir(parents=True)
        np.save(folder / split / "labels.npy", labels.astype(np.int64))
        np.save(folder / split / "images.npy", np.stack([draw(label, SIZE, random) for label in labels]))
        if split == "train":
            np.save(folder / split / "source.npy", np.stack([draw(label, SOURCE, random) for label in labels]))
        class_counts[split] = tuple(np.bincount(labels, minlength=3).tolist())
    shape = Preprocessing(height=SIZE, width=SIZE)
    return Dataset(
        source=source,
        classes=("disc", "bar", "frame"),
        preprocessing=shape,
        source_size=(SOURCE, SOURCE),
        counts=counts,
        class_counts=class_counts,
        content_digest="0" * 64,
        golden=(),
    ).at(folder)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture(scope="session")
def model() -> ModelRecipe:
    return ModelRecipe(backbone="test_efficientnet", weights="none")


@pytest.fixture
def recipe() -> Callable[..., TrainRecipe]:
    def build(**changes: object) -> TrainRecipe:
        settings = {"epochs": 2, "batch_size": 8, "threads": 1, "device": "cpu", "lr": 5e-3, "warmup_fraction": 0.1} | changes
        return Recipe().train.model_copy(update=settings)

    return build


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> ModelRecipe:
    """The tiny network with weights from a file, so that it counts as pretrained; no dropout."""
    import torch
    from safetensors.torch import save_file

    from edgetune.train.network import NetworkSpec, create_network

    path = tmp_path_factory.mktemp("pretrained") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = create_network(NetworkSpec(backbone="test_efficientnet"), 5)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return ModelRecipe(backbone="test_efficientnet", weights=str(path), drop_rate=0.0)


def run_training(
    dataset: Dataset,
    model: ModelRecipe,
    recipe: TrainRecipe,
    folder: Path,
    lines: Any = None,
    *,
    stop: Callable[[], bool] = lambda: False,
    **more: Any,
) -> Checkpoint:
    """Train as the pipeline does: with the features of the frozen backbone, where the strategy wants them."""
    from edgetune.train.stage import TrainJob, train
    from edgetune.train.start import features
    from edgetune.train.strategy import wants_probe

    folder.mkdir(parents=True, exist_ok=True)
    told, seen = lines or Silent(), None
    if wants_probe(recipe, pretrained=model.weights != "none"):
        place = folder.with_name(f"{folder.name}-features")
        place.mkdir(exist_ok=True)
        settings = {"functions": "any", "seed": more.get("seed", 0), "folder": place, "progress": told}
        seen = features(dataset, model, recipe, **settings)
    settings = {"seed": 0, "key": "k"} | more
    return train(TrainJob(dataset=dataset, model=model, recipe=recipe, folder=folder, features=seen, **settings), told, stop)


@pytest.fixture(scope="session")
def run() -> Callable[..., Checkpoint]:
    return run_training


def open_tuning(dataset: Dataset, recipe: TrainRecipe, **more: Any) -> Any:
    """Return a run before its first step, with random weights and no linear probe."""
    import torch

    from edgetune.train.finetune import FineTuning
    from edgetune.train.network import NetworkSpec, create_network, normalisation
    from edgetune.train.objective import Objective
    from edgetune.train.speed import Speed

    spec = NetworkSpec(backbone="test_efficientnet")
    torch.manual_seed(0)
    network = more.pop("network", None) or create_network(spec, len(dataset.classes))
    decided = {"augment": recipe.augment.model_copy(update={"flip": True})}
    decided |= {"batch_norm": "frozen"} if recipe.batch_norm == "auto" else {}
    decided |= {"warmup_fraction": 0.1} if recipe.warmup_fraction == "auto" else {}
    objective = Objective(
        dataset.heads, more.pop("tasks", {}), np.array(dataset.targets("train")), label_smoothing=recipe.label_smoothing
    )
    settings = {"seed": 0, "device": torch.device("cpu"), "speed": Speed()} | more
    tuning = FineTuning(network, normalisation(spec), dataset, recipe.model_copy(update=decided), objective, **settings)
    tuning.learner.open_epoch(0, max(1, tuning.epochs))
    return tuning


@pytest.fixture(scope="session")
def tuned() -> Callable[..., Any]:
    return open_tuning


@pytest.fixture(scope="session")
def teacher(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A network that has learnt the shapes."""
    model = ModelRecipe(backbone="test_efficientnet", weights="none", drop_rate=0.0)
    changes = {"epochs": 3, "batch_size": 8, "threads": 1, "device": "cpu", "lr": 1e-2}
    return run_training(dataset, model, TrainRecipe().model_copy(update=changes), tmp_path_factory.mktemp("teacher"), seed=9)


@pytest.fixture
def donor() -> dict[str, Any]:
    """The tensors of a network for five classes."""
    return tensors_of(plain(5))
