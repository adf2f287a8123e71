"""Where images come from, whatever it is: a list of encoded images with what is known of each.

Sources are a folder laid out in classes (`layout`), a manifest (`manifest`), a data set of torchvision (`named`) and
scikit-learn's digits (`digits`).
"""

from __future__ import annotations

import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from edgetune.artefacts import Split
from edgetune.data import NO_TASKS
from edgetune.data.listing import shown
from edgetune.device.heads import SINGLE_LABEL, Head, column_names
from edgetune.errors import Fault, RecipeError
from edgetune.recipe import MANIFESTS, NAMED_SOURCES, DataRecipe, TaskRecipe

__all__ = ["SPLITS", "SPLIT_WORDS", "Item", "Source", "case_clashes", "is_manifest", "one_head", "open_source"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_WORDS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One encoded image.

    Attributes:
        name: its path below the source.
        label: the name of its stratum: of its class, where there is one task of a single label.
        targets: what is right for it, the columns of the source's heads side by side, see `Dataset.targets`; NaN is not known.
        split: where the source itself puts it; None if edgetune may choose.
        path: the file; None for an image that stands in no file of its own.
        status: of the file when it was listed.
        make: returns the encoded bytes of an image that stands in no file of its own; the same ones at every call.
    """

    name: str
    label: str
    targets: tuple[float, ...] = ()
    split: Split | None = None
    path: str | None = None
    status: os.stat_result | None = None
    make: Callable[[], bytes] | None = None

    def open(self) -> BinaryIO:
        """Return the encoded bytes as a file that is open.

        Raises:
            OSError: the file cannot be opened.
        """
        return Path(self.path).open("rb") if self.path else io.BytesIO(self.read())

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            OSError: the file cannot be read.
        """
        if self.make is not None:
            return self.make()
        return Path(self.path or "").read_bytes()


@dataclass(frozen=True, kw_only=True)
class Source:
    """All images of a source.

    Attributes:
        name: as the recipe gave it.
        items: sorted by name.
        heads: the tasks; empty where the source is too faulty to tell.
        strata: the groups by which images are split, as `Dataset.strata`.
        loose: those of them that are no classes, and need not be in every split.
        cut_words: how to say that a split was cut from train, with `{split}` and `{percent}`.
        given: the splits that the source has itself; empty if it leaves splitting to edgetune.
        skipped: name → why it was passed over.
        outside: links, or paths of a manifest, that lead out of the folder, and were followed.
        faults: why the source cannot be used.
        notes: what a reader of the report must know of the source itself.
        unlabelled: images without labels, sorted by name.
        apart: whether labels and splits stand apart from the names of the images, and have to be told from them.
        version: a digest that stands for all contents, of a source whose images stand in no files of their own; else empty.
    """

    name: str
    items: tuple[Item, ...]
    heads: tuple[Head, ...]
    strata: tuple[str, ...]
    loose: frozenset[str] = frozenset()
    cut_words: str = "there is no {split}/: {percent} % of train/ became the {split} split"
    given: tuple[Split, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    unlabelled: tuple[Item, ...] = ()
    apart: bool = False
    version: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for every logit of the heads."""
        return column_names(self.heads) if self.heads else ()

    @property
    def is_classifier(self) -> bool:
        """Whether the only task is to choose one of several classes."""
        return all(head.kind == SINGLE_LABEL for head in self.heads) and len(self.heads) <= 1

    @property
    def everything(self) -> tuple[Item, ...]:
        """The items, and behind them the unlabelled ones."""
        return self.items + self.unlabelled


def open_source(recipe: DataRecipe, tasks: Mapping[str, TaskRecipe] = NO_TASKS) -> Source:
    """List the images that a recipe names, without decoding any.

    Args:
        recipe: names the source.
        tasks: what is to be learnt; none is one class per image.

    Raises:
        DataError: there is no such source, or it cannot be read. Other faults are in the value.
        RecipeError: the tasks are none that such a source can have.
    """
    source = _open(recipe, tasks)
    if not recipe.unlabelled:
        return source
    from edgetune.data.unlabelled import list_unlabelled

    items, skipped = list_unlabelled(recipe.unlabelled, recipe.channels)
    return replace(source, unlabelled=items, skipped=source.skipped | skipped)


def _open(recipe: DataRecipe, tasks: Mapping[str, TaskRecipe]) -> Source:
    if is_manifest(recipe.source):
        from edgetune.data.manifest import open_manifest

        return open_manifest(recipe, tasks)
    head_name = _the_one_task(recipe.source, tasks)
    if recipe.source == "digits":
        from edgetune.data.digits import digits

        return digits(head_name)
    if recipe.source.startswith(NAMED_SOURCES):
        from edgetune.data.named import open_named

        return open_named(recipe, head_name)
    from edgetune.data.layout import open_folder

    return open_folder(recipe.source, head_name, recipe.channels)


def is_manifest(source: str) -> bool:
    """Return whether a source is the name of a manifest, by its suffix; a folder may be called so too."""
    return source.lower().endswith(MANIFESTS) and not Path(source).expanduser().is_dir()


def _the_one_task(source: str, tasks: Mapping[str, TaskRecipe]) -> str:
    """Return the name of the head of a source that has one class per image.

    Raises:
        RecipeError: the tasks are something else.
    """
    fits = [task.kind == SINGLE_LABEL and not task.columns for task in tasks.values()]
    if fits == [True]:
        return next(iter(tasks))
    if not fits:
        return "label"
    faults = [
        Fault(where=f"tasks.{name}", problem="not a task for this source", got=_described(task), expected="one class per image")
        for name, task in tasks.items()
    ]
    raise RecipeError(
        f"{shown(source)} has one class per image, and so one task",
        faults=faults,
        remedy="leave out [tasks], keep one of kind single-label without columns, or give data.source a manifest with columns",
    )


def _described(task: TaskRecipe) -> str:
    return f"{task.kind} from the columns {', '.join(task.columns)}" if task.columns else task.kind


def one_head(name: str, classes: tuple[str, ...]) -> tuple[Head, ...]:
    """Return the head of an ordinary classifier; none where there are no classes."""
    return (Head(name=name, kind=SINGLE_LABEL, columns=classes),) if classes else ()


def case_clashes(labels: Iterable[str]) -> list[Fault]:
    """Return a fault for each set of class names that are the same but for upper and lower case."""
    folded: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        folded[unicodedata.normalize("NFC", label.casefold())].append(label)
    problem, hint = "class names that differ only in case", "rename or merge them"
    return [Fault(where=shown(", ".join(same)), problem=problem, hint=hint) for same in folded.values() if len(same) > 1]
