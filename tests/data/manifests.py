"""What the tests of manifests share: the kinds of tasks, and what a manifest is found to hold or to lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from edgetune.artefacts import Dataset, Split
from edgetune.data import inspect
from edgetune.data.hygiene import Hygiene
from edgetune.errors import DataError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe, TaskRecipe

Prepared = Callable[..., Dataset]
Picture = Callable[..., Image.Image]
Manifest = Callable[..., Path]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
REGRESSION = {"score": TaskRecipe(kind="regression")}
TAGS = {"tags": TaskRecipe(kind="multi-label")}


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def look(source: Path, tasks: Mapping[str, TaskRecipe] | None = None, **keys: object) -> Hygiene:
    recipe = DataRecipe(**{"source": str(source), "image_size": 32, **keys})
    return inspect(recipe, Silent(), tasks=tasks or {})


def refused(prepared: Prepared, source: Path, **keys: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        prepared(source, **keys)
    assert caught.value.exit_code == 5
    return [str(fault) for fault in caught.value.faults]


def known(dataset: Dataset) -> dict[str, tuple[float, ...]]:
    """Return every image's targets, by its name."""
    return {
        name: tuple(row)
        for split in SPLITS
        for name, row in zip(dataset.names(split), dataset.targets(split).tolist(), strict=True)
    }
