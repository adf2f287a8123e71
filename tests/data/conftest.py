from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetune.artefacts import Dataset
from edgetune.data import fingerprint, prepare
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe, TaskRecipe


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Return a maker of pictures: a number gives always the same one, unlike that of any other number."""

    def make(number: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
        blocks = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def fill(picture: Callable[..., Image.Image]) -> Callable[..., None]:
    """Return a maker of class folders: `fill(root, cats=12, dogs=12)`; times lie in the past, so that nothing is racy."""

    def make(root: Path, first: int = 0, **counts: int) -> None:
        number = first
        for label, count in counts.items():
            (root / label).mkdir(parents=True, exist_ok=True)
            for _ in range(count):
                path = root / label / f"{number:04}.png"
                picture(number).save(path)
                os.utime(path, (1_600_000_000, 1_600_000_000))
                number += 1

    return make


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Dataset]:
    """Return a caller of `prepare` as the pipeline calls it."""
    counter = iter(range(1000))

    def call(source: Path | str, *, seed: int = 0, tasks: Mapping[str, TaskRecipe] | None = None, **keys: object) -> Dataset:
        recipe = DataRecipe(**{"source": str(source), "image_size": 32, **keys})
        folder = tmp_path / f"prepared-{next(counter)}"
        folder.mkdir()
        expected = fingerprint(recipe, None, tasks or {})
        return prepare(recipe, seed=seed, folder=folder, expected_fingerprint=expected, progress=Silent(), tasks=tasks or {})

    return call


@pytest.fixture
def manifest(tmp_path: Path, picture: Callable[..., Image.Image]) -> Callable[..., Path]:
    """Return a writer of manifests: `manifest(["label"], [("a",), …])` writes an image for each row beside it."""

    def write(names: Sequence[str], rows: Sequence[Sequence[object]], *, name: str = "set/list.csv", first: int = 0) -> Path:
        path = tmp_path / name
        (path.parent / "images").mkdir(parents=True, exist_ok=True)
        delimiter = "\t" if path.suffix == ".tsv" else ","
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["image", *names])
            for number, row in enumerate(rows, start=first):
                picture(number).save(path.parent / "images" / f"{number:04}.png")
                writer.writerow([f"images/{number:04}.png", *row])
        return path

    return write


@pytest.fixture
def root(tmp_path: Path, fill: Callable[..., None]) -> Path:
    """A folder of two classes with six pictures each."""
    fill(tmp_path / "photos", cats=6, dogs=6)
    return tmp_path / "photos"
