"""Pictures that a network written by hand can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
