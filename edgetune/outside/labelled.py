"""Images and a model held to the same size, classes and tasks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from edgetune.artefacts import Dataset, Head, Preprocessing
from edgetune.device.decisions import is_classifier
from edgetune.device.heads import REGRESSION, column_names
from edgetune.errors import DataError, Fault, GraphError, UsageError
from edgetune.progress import Progress
from edgetune.recipe import DataRecipe, TaskRecipe

__all__ = ["data_for", "in_order_of", "is_part_of", "named", "numbered_as", "require_same_heads", "tasks_of"]

SHOWN = 5
"""Names of classes in an error."""
LABELS = "labels.npy"


def named(classes: Sequence[str]) -> str:
    """Return a few names of classes, and how many there are if that is not all."""
    more = f", … ({len(classes)} classes)" if len(classes) > SHOWN else ""
    return ", ".join(classes[:SHOWN]) + more


def data_for(preprocessing: Preprocessing, recipe: DataRecipe) -> DataRecipe:
    """Return the data table that prepares images as a model expects them.

    Raises:
        GraphError: the model does not take squares.
        UsageError: the table asks for something else.
    """
    if preprocessing.height != preprocessing.width:
        raise GraphError(
            f"the model takes {preprocessing.height} x {preprocessing.width} pixels; only squares are prepared here"
        )
    wanted = {
        "image_size": preprocessing.height,
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
        "crop_fraction": preprocessing.crop_fraction,
        "channels": preprocessing.channels,
    }
    faults = [
        Fault(where=f"data.{key}", problem="is not what the model says", got=str(getattr(recipe, key)), expected=str(value))
        for key, value in wanted.items()
        if key in recipe.model_fields_set and getattr(recipe, key) not in (value, "auto")
    ]
    if faults:
        raise UsageError("the images cannot be prepared in another way than the model was made for", faults=faults)
    return recipe.model_copy(update=wanted)


def tasks_of(heads: Sequence[Head]) -> dict[str, TaskRecipe]:
    """Return the tasks that heads come from, as far as they tell: values stand in columns of their own, else it is the task's.

    None for a classifier: a folder or a manifest with one class per image needs no word on it.
    """
    if is_classifier(heads):
        return {}
    return {
        head.name: TaskRecipe.model_validate({"kind": head.kind, "columns": head.columns if head.kind == REGRESSION else ()})
        for head in heads
    }


def require_same_heads(dataset: Dataset, heads: Sequence[Head], owner: str) -> None:
    """Refuse images of other classes, labels or values than a model was trained on.

    Raises:
        DataError: they are others, or in another order.
    """
    wanted = column_names(heads)
    if dataset.classes != wanted:
        # Names that only one of them has tell more than the first ones of many.
        got = [name for name in dataset.classes if name not in wanted] or dataset.classes
        missing = [name for name in wanted if name not in dataset.classes] or wanted
        raise DataError(
            f"the images' classes are not the {owner}'s: got {named(got)}, expected {named(missing)}",
            remedy="give images of the classes that the model was trained on",
        )
    got, expected = ([f"{head.name} ({head.kind})" for head in some] for some in (dataset.heads, heads))
    # The only head of a classifier may have any name: a folder of classes has none for it.
    if got != expected and not (dataset.is_classifier and is_classifier(heads)):
        raise DataError(
            f"the images' tasks are not the {owner}'s: got {', '.join(got)}, expected {', '.join(expected)}",
            remedy="name the tasks in the recipe as the model's",
        )


def is_part_of(dataset: Dataset, heads: Sequence[Head]) -> bool:
    """Return whether images are of some of a classifier's classes only, or of all of them in another order."""
    wanted = column_names(heads)
    classifiers = dataset.is_classifier and is_classifier(heads)
    return classifiers and dataset.classes != wanted and set(dataset.classes) <= set(wanted)


def in_order_of(heads: Sequence[Head], dataset: Dataset, owner: str, folder: Path, progress: Progress) -> Dataset:
    """Return images with their labels counted as a model's logits are.

    A model may know more classes than the images are of: what is right is then right among all of its classes.

    Args:
        heads: the model's.
        dataset: the images.
        owner: of the heads, for the error.
        folder: receives the images if the labels have to be counted anew.
        progress: told if the images are of some classes only.

    Raises:
        DataError: the images are of other classes.
    """
    if not is_part_of(dataset, heads):
        require_same_heads(dataset, heads, owner)
        return dataset
    if len(dataset.classes) < len(column_names(heads)):
        progress.line(f"the images are of {len(dataset.classes)} of the {owner}'s {len(column_names(heads))} classes")
    return numbered_as(heads, dataset, folder)


def numbered_as(heads: Sequence[Head], dataset: Dataset, folder: Path) -> Dataset:
    """Return the same images in another folder, with each label the index of its class among a model's.

    Args:
        heads: the one of a classifier.
        dataset: of classes that are among them.
        folder: receives links to the images, and the new labels.
    """
    import numpy as np

    names = column_names(heads)
    places = [names.index(name) for name in dataset.classes]
    index = np.array(places, "<i8")
    for path in sorted(path for path in dataset.folder.rglob("*") if path.is_file()):
        target = folder / path.relative_to(dataset.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name == LABELS:
            np.save(target, index[np.load(path, allow_pickle=False)], allow_pickle=False)
        elif path.name != "stage.json":
            _link(path, target)
    counts = {split: _spread(row, places, len(names)) for split, row in dataset.class_counts.items()}
    changes = {"classes": names, "heads": tuple(heads), "strata": names, "class_counts": counts}
    return dataset.model_copy(update=changes).at(folder)


def _spread(counts: Sequence[int], places: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the counts of the images' classes among those of the model."""
    table = dict(zip(places, counts, strict=True))
    return tuple(table.get(place, 0) for place in range(size))


def _link(path: Path, target: Path) -> None:
    """Place a file a second time without its bytes, where the disk can: decoded images are large."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
