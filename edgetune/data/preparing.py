"""The stage: from encoded images to memory-mapped arrays, each image opened and decoded once."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Dataset, Preprocessing
from edgetune.data import NO_TASKS
from edgetune.data.account import account_for
from edgetune.data.decoding import choose_image_size, decode_all
from edgetune.data.duplicates import THUMBNAIL_SIZE, thumbnail
from edgetune.data.hygiene import Hygiene
from edgetune.data.index import digests_of, fingerprint_of
from edgetune.data.judge import judge
from edgetune.data.listing import shown
from edgetune.data.rows import Rows
from edgetune.data.source import Source, open_source
from edgetune.data.unlabelled import keep_unlabelled
from edgetune.data.writing import Writer, larger_side, refusal
from edgetune.device.preprocess import fit
from edgetune.errors import DataError, UsageError
from edgetune.progress import Progress
from edgetune.recipe import DataRecipe, TaskRecipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]

__all__ = ["inspect", "prepare", "preprocessing_for"]


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
    """Decode, judge and split the images of a recipe, and write them into `folder` as `Dataset` documents it.

    Args:
        recipe: names the source and says how to treat it.
        seed: of the split, where edgetune makes it.
        folder: exists and is empty.
        expected_fingerprint: what `fingerprint` said of the source before; it must not have changed since.
        progress: is told how far the work is.
        index_path: the memory of `fingerprint`.
        tasks: what is to be learnt; none is one class per image.

    Raises:
        DataError: the images cannot be used; with all faults at once.
        RecipeError: the tasks are none that such a source can have.
        UsageError: the disk is full.
    """
    source = open_source(recipe, tasks)
    digests = _expected_digests(source, expected_fingerprint, index_path)
    spec = preprocessing_for(recipe, source)
    try:
        # Scratch arrays stand in the folder itself: it is on the disk that has to hold the result anyway.
        with tempfile.TemporaryDirectory(prefix=".scratch-", dir=folder) as scratch:
            # The folder's name, not its path: that says where it lies on this machine, and does not belong into a bundle.
            writer = Writer(source, Path(recipe.source).absolute().name, folder, spec)
            return _decode_and_write(source, recipe, seed, digests, writer, Path(scratch), progress)
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(f"no space left for the decoded images in {folder}", remedy=_space_remedy(source, spec)) from fault


def inspect(recipe: DataRecipe, progress: Progress, *, seed: int = 0, tasks: Mapping[str, TaskRecipe] = NO_TASKS) -> Hygiene:
    """Return the account of a source's health, without writing anything that stays.

    Raises:
        DataError: there is no such source, or it cannot be read. Everything else is in the account.
        RecipeError: the tasks are none that such a source can have.
    """
    source = open_source(recipe, tasks)
    with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch, _thumbnail_rows(source, Path(scratch)) as thumbnails:
        seen = decode_all(
            source.everything,
            None,
            lambda place, image: thumbnails.put(place, thumbnail(image)),
            progress,
            channels=recipe.channels,
        )
        judgement = judge(source, seen, thumbnails.array(), recipe, seed)
        unlabelled = keep_unlabelled(source, seen, judgement, thumbnails.array(), recipe.near_duplicate_bits)
        return account_for(source, seen, judgement, unlabelled, recipe, preprocessing_for(recipe, source).height)[0]


def preprocessing_for(recipe: DataRecipe, source: Source) -> Preprocessing:
    """Return how an image becomes the model's input, with an automatic size decided."""
    size = choose_image_size(source) if recipe.image_size == "auto" else recipe.image_size
    return Preprocessing(
        height=size,
        width=size,
        resize=recipe.resize,
        interpolation=recipe.interpolation,
        crop_fraction=recipe.crop_fraction,
        channels=recipe.channels,
    )


def _expected_digests(source: Source, expected_fingerprint: str, index_path: Path | None) -> list[str]:
    """Return the digest that each file must have when it is opened; "" for images that stand in no files of their own.

    Raises:
        DataError: the source is not what the fingerprint says.
    """
    digests = digests_of(source, index_path)
    if fingerprint_of(source, digests) != expected_fingerprint:
        raise DataError(f"{shown(source.name)} changed during the run", remedy="leave the images alone and run this again")
    return digests


def _space_remedy(source: Source, spec: Preprocessing) -> str:
    # Every image is held twice, as scratch and as result, at both sizes.
    gigabytes = 2 * len(source.everything) * spec.channels * (spec.height * spec.width + larger_side(spec) ** 2) / 1e9
    return f"free up to {gigabytes:.1f} GB, use another folder, or choose a smaller data.image_size"


def _thumbnail_rows(source: Source, scratch: Path) -> Rows:
    return Rows(scratch / "thumbnails", len(source.everything), (THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3))


def _decode_and_write(
    source: Source,
    recipe: DataRecipe,
    seed: int,
    digests: Sequence[str],
    writer: Writer,
    scratch: Path,
    progress: Progress,
) -> Dataset:
    # A layout that is refused anyway is still looked through, for all faults to come at once, but nothing is stored.
    items = source.everything
    stored = 0 if source.faults else len(items)
    labelled = 0 if source.faults else len(source.items)
    size, larger = writer.input, writer.larger
    with (
        _thumbnail_rows(source, scratch) as thumbnails,
        Rows(scratch / "inputs", labelled, size.shape) as inputs,
        Rows(scratch / "sources", stored, larger.shape) as sources,
    ):

        def sink(place: int, image: Image) -> None:
            thumbnails.put(place, thumbnail(image))
            if place < labelled:
                inputs.put(place, fit(image, size))
            if stored and items[place].split in (None, "train"):
                sources.put(place, fit(image, larger))

        seen = decode_all(items, digests, sink, progress, channels=recipe.channels)
        judgement = judge(source, seen, thumbnails.array(), recipe, seed)
        unlabelled = keep_unlabelled(source, seen, judgement, thumbnails.array(), recipe.near_duplicate_bits)
        hygiene, faults = account_for(source, seen, judgement, unlabelled, recipe, size.height)
        if faults:
            raise refusal(source, faults)
        return writer.write(seen, judgement, unlabelled.kept, hygiene, inputs, sources)
