"""Reading, hygiene, splits and the cache of decoded images.

Three functions are for other rooms; each imports what it needs when it is called, so that a build whose data is cached never
loads NumPy, Pillow or scikit-learn for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.artefacts import Dataset
    from edgetune.data.hygiene import Hygiene
    from edgetune.progress import Progress
    from edgetune.recipe import DataRecipe, TaskRecipe

__all__ = ["fingerprint", "inspect", "prepare"]

NO_TASKS: Mapping[str, TaskRecipe] = MappingProxyType({})


def fingerprint(recipe: DataRecipe, index_path: Path | None, tasks: Mapping[str, TaskRecipe] = NO_TASKS) -> str:
    """Return a digest of everything that `prepare` would read. See `edgetune.data.index`."""
    from edgetune.data import index

    return index.fingerprint(recipe, index_path, tasks)


def prepare(
    recipe: DataRecipe,
    *,
    seed: int,
    folder: Path,
    expected_fingerprint: str,
    progress: Progress,
    index_path: Path | None = None,
    tasks: Mapping[str, TaskRecipe] = NO_TASKS,
) -> Dataset:
    """Decode, judge and split the images of a recipe, and write them into an empty folder. See `edgetune.data.preparing`."""
    from edgetune.data import preparing

    return preparing.prepare(
        recipe,
        seed=seed,
        folder=folder,
        expected_fingerprint=expected_fingerprint,
        progress=progress,
        index_path=index_path,
        tasks=tasks,
    )


def inspect(recipe: DataRecipe, progress: Progress, *, seed: int = 0, tasks: Mapping[str, TaskRecipe] = NO_TASKS) -> Hygiene:
    """Return the account of a source's health. See `edgetune.data.preparing`."""
    from edgetune.data import preparing

    return preparing.inspect(recipe, progress, seed=seed, tasks=tasks)
