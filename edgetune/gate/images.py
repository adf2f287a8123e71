"""Labelled images, as each of the two models takes them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.artefacts import Dataset, Head
from edgetune.errors import DataError, UsageError
from edgetune.files import sha256_file
from edgetune.gate.sides import Side
from edgetune.outside.checking import promised_tasks
from edgetune.outside.labelled import data_for, in_order_of, tasks_of
from edgetune.progress import Progress
from edgetune.recipe import BUILT_IN_SOURCES, NAMED_SOURCES, DataRecipe, Recipe

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Labelled", "Source", "labelled", "source_of"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the images come from.

    Attributes:
        recipe: the table `data` that says so.
        seed: of the split, where the images are not split already.
        every: take all images, not the test split alone.
        words: for a person.
    """

    recipe: DataRecipe
    seed: int = 0
    every: bool = False
    words: str


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images as a model takes them, and what is right.

    Attributes:
        path: an .npy file, uint8 `[N, H, W, K]`.
        targets: float32 `[N, T]`, NaN where not known.
        names: the path of each image below the source.
        heads: the model's.
        images_sha256: of the pixels' file.
        labels_sha256: of the targets' bytes.
        source: where they come from, in words.
    """

    path: Path
    targets: npt.NDArray[np.float32]
    names: tuple[str, ...]
    heads: tuple[Head, ...]
    images_sha256: str
    labels_sha256: str
    source: str

    def facts(self) -> dict[str, object]:
        """Return what a report says of the images."""
        return {
            "source": self.source,
            "images": len(self.names),
            "images_sha256": self.images_sha256,
            "labels_sha256": self.labels_sha256,
        }


def source_of(given: str | None, every: bool, *sides: Side) -> Source | None:
    """Return where the images come from: as given, else from the recipe of a run folder, else None.

    Raises:
        UsageError: all images are wanted, and none are named: those of a recipe were trained on.
    """
    if given is not None:
        named = given in BUILT_IN_SOURCES or given.startswith(NAMED_SOURCES)
        source = given if named else str(Path(given).expanduser().absolute())
        return Source(recipe=DataRecipe(source=source), every=every, words=Path(given).name if not named else given)
    if every:
        raise UsageError(
            "--all-images is for images that no model was trained on", remedy="name them with --data DIR, or leave it out"
        )
    for side in sides:
        if side.run is not None:
            recipe = Recipe.load(side.run / "recipe.toml")
            table = recipe.data.model_copy(update={"unlabelled": ""})
            source = Path(table.source).name or table.source
            return Source(recipe=table, seed=recipe.seed, words=f"{source}, by the recipe of {side.shown.given}")
    return None


def labelled(source: Source, side: Side, folder: Path, progress: Progress) -> Labelled:
    """Return the images as one side takes them.

    Args:
        source: where they come from.
        side: whose preprocessing and classes count.
        folder: receives the decoded images.
        progress: told what goes on.

    Raises:
        DataError: the images cannot be used, or are of other classes.
    """
    from edgetune import data

    if side.preprocessing is None:
        raise ValueError("a side without preprocessing has no images")
    recipe = data_for(side.preprocessing, DataRecipe.model_validate(_said(source.recipe)))
    tasks = promised_tasks(dict(side.manifest)) if side.manifest else tasks_of(side.heads)
    (folder / "data").mkdir(parents=True)
    found = data.fingerprint(recipe, None, tasks)
    dataset = data.prepare(
        recipe, seed=source.seed, folder=folder / "data", expected_fingerprint=found, progress=progress, tasks=tasks
    )
    dataset = in_order_of(side.heads, dataset, side.name, folder / "labelled", progress)
    return _together(dataset, source, side, folder)


def _said(recipe: DataRecipe) -> dict[str, object]:
    """Return the keys of a table that are about reading; how images become an input is the model's business."""
    own = {"image_size", "resize", "interpolation", "crop_fraction", "channels"}
    return {key: getattr(recipe, key) for key in recipe.model_fields_set - own}


def _together(dataset: Dataset, source: Source, side: Side, folder: Path) -> Labelled:
    """Return the test split, or all splits one after the other."""
    splits = ("train", "val", "test") if source.every else ("test",)
    if not sum(dataset.counts.get(split, 0) for split in splits):
        raise DataError(f"{source.words} has no images to compare on", remedy="give others with --data DIR")
    path = dataset.folder / "test" / "images.npy"
    names = [name for split in splits for name in dataset.names(split)]  # type: ignore[arg-type]
    targets = np.concatenate([np.asarray(dataset.targets(split), np.float32) for split in splits])  # type: ignore[arg-type]
    if source.every:
        path = folder / "images.npy"
        _join([dataset.folder / split / "images.npy" for split in splits], path)
    return Labelled(
        path=path.resolve(),
        targets=targets,
        names=tuple(names),
        heads=side.heads,
        images_sha256=sha256_file(path),
        labels_sha256=_digest(targets, names),
        source=source.words,
    )


def _join(parts: list[Path], path: Path) -> None:
    """Write one array of several, without holding them in memory."""
    arrays = [np.load(part, mmap_mode="r", allow_pickle=False) for part in parts]
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(sum(map(len, arrays)), *arrays[0].shape[1:]))
    start = 0
    for array in arrays:
        whole[start : start + len(array)] = array
        start += len(array)
    whole.flush()


def _digest(targets: npt.NDArray[np.float32], names: list[str]) -> str:
    """Return the digest of what is right for which image."""
    import hashlib

    found = hashlib.sha256(json.dumps([os.fsencode(name).hex() for name in names]).encode())
    found.update(np.ascontiguousarray(targets).tobytes())
    return found.hexdigest()
