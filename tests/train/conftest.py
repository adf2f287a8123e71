"""A tiny data set of coloured shapes, and the recipes that train on it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetune.artefacts import Dataset, Preprocessing
from edgetune.recipe import ModelRecipe, Recipe, TrainRecipe

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
        settings = {"epochs": 2, "batch_size": 8, "threads": 1, "device": "cpu", "lr": 5e-3} | changes
        return Recipe().train.model_copy(update=settings)

    return build
