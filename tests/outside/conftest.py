"""Pictures that a network written by hand can tell apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetune.outside import FileRun, Given
from edgetune.pipeline import Run
from edgetune.profile import load_profile
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe, Recipe

from .models import LEVELS, SIDE


@pytest.fixture(scope="session")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 24 blotchy grey-ish pictures that differ in brightness alone."""
    folder = tmp_path_factory.mktemp("levels") / "levels"
    generator = np.random.default_rng(1)
    for name, level in LEVELS.items():
        (folder / name).mkdir(parents=True)
        for index in range(24):
            blotches = np.kron(generator.normal(0, 25, (8, 8, 3)), np.ones((SIDE // 8, SIDE // 8, 1)))
            pixels = level + blotches - blotches.mean()
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def brought(levels: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FileRun]:
    """Open the run of a file with the pictures; keywords are what is said of the file, and `data` what is said of them."""
    folder = tmp_path_factory.mktemp("brought")

    def run(path: Path, *, data: dict[str, Any] | None = None, **said: Any) -> FileRun:
        recipe = Recipe(target="x86-vnni", data=DataRecipe(source=str(levels), **(data or {})))
        started = Run(recipe=recipe, profile=load_profile("x86-vnni"), folder=folder, progress=Silent())
        return FileRun.of(started, Given.of({"file": str(path), **said}))

    return run
