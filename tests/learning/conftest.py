"""A small run: pictures, a tiny network's weights, and what opens it with other settings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgetune.pipeline import Run
from edgetune.progress import Silent
from edgetune.recipe import Recipe

CLASSES = ("blue", "green", "red")


class Lines(Silent):
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgetune.train.network import NetworkSpec, create_network

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = create_network(NetworkSpec(backbone="test_efficientnet"), 5)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def tints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy pictures, each with a little more of its colour; and five of no class."""
    folder = tmp_path_factory.mktemp("tints")
    random = np.random.default_rng(0)
    for number in range(65):
        name = CLASSES[number % 3] if number < 60 else "../loose"
        image = random.integers(40, 200, (36, 36, 3))
        image[..., 2 - number % 3] += 25
        (folder / "known" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(folder / "known" / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def settings(tints: Path, tiny_weights: Path) -> dict[str, Any]:
    return {
        "data.source": str(tints / "known"),
        "data.image_size": 32,
        "data.near_duplicate_bits": 0,
        "model.backbone": "test_efficientnet",
        "model.weights": str(tiny_weights),
        "train.epochs": 1,
        "train.batch_size": 14,
        "train.threads": 1,
        "train.device": "cpu",
        "train.probe_iterations": 5,
        "watch.tensorboard": False,
        "watch.pictures": False,
    }


@pytest.fixture(scope="session")
def opened(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Open a run in a folder, which has its images already."""
    prepared = tmp_path_factory.mktemp("prepared") / "run"
    prepared.mkdir()
    assert Run.open(Recipe.load(None, (), dict(settings)), prepared, Silent()).dataset.counts["train"]

    def open_run(folder: Path, **changes: Any) -> Run:
        if not folder.exists():
            shutil.copytree(prepared, folder)
        overrides = settings | {name.replace("__", "."): value for name, value in changes.items()}
        return Run.open(Recipe.load(None, (), overrides), folder, Lines())

    return open_run


@pytest.fixture(scope="session")
def older(opened, tmp_path_factory) -> Path:
    """A run folder with a network in it that knows the task."""
    run = opened(tmp_path_factory.mktemp("older") / "run", train__epochs=3, train__lr=5e-3)
    assert run.checkpoint.epochs == 3
    return run.folder
