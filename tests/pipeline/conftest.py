"""A small folder of images, and the run folder that a build made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edgetune.cli.main import main

from .line import COLOURS, arguments


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Three classes of 40 noisy coloured discs."""
    folder = tmp_path_factory.mktemp("photos") / "discs"
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(40):
            picture = Image.fromarray(generator.integers(0, 255, (48, 56, 3), dtype=np.uint8))
            x, y, radius = generator.integers(8, 24, 3)
            ImageDraw.Draw(picture).ellipse((x, y, x + radius, y + radius), fill=colour)
            picture.save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def built(photos, tmp_path_factory) -> Path:
    """A run folder with everything in it."""
    run = tmp_path_factory.mktemp("runs") / "discs"
    assert main(["build", "--data", str(photos), "--output", str(run), *arguments()]) in (0, 10)
    return run


@pytest.fixture
def copy(built, tmp_path) -> Path:
    """A copy of the run, to do things to."""
    return shutil.copytree(built, tmp_path / "copy")
