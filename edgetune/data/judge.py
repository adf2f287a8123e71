"""From what was seen of every image to a judgement: what is usable, what belongs together, which split each image is in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.artefacts import Split
from edgetune.data.decoding import Seen
from edgetune.data.duplicates import Groups, near_duplicates
from edgetune.data.listing import shown
from edgetune.data.source import SPLITS, Item, Source
from edgetune.data.splits import Unit, deal
from edgetune.errors import Fault
from edgetune.recipe import DataRecipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Copies", "Judgement", "find_copies", "judge"]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which usable images are copies of each other. Sets hold places of items, in order.

    Attributes:
        equal: sets of two or more equal pictures.
        conflicts: those of them under several labels.
        near: sets of two or more pictures, not all equal, joined by near-duplicates.
        group: place → the smallest place of everything joined to it.
    """

    equal: tuple[tuple[int, ...], ...]
    conflicts: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]
    group: dict[int, int]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is to be done with each image.

    Attributes:
        splits: per split, the places of its items, in order.
        copies: which of the items are copies of each other.
        faults: what forbids to use the source under the recipe.
        cut: splits that edgetune cut from train, because the source has others but not these.
    """

    splits: dict[Split, tuple[int, ...]]
    copies: Copies
    faults: tuple[Fault, ...]
    cut: tuple[Split, ...]


def judge(source: Source, seen: Sequence[Seen], thumbnails: npt.NDArray[np.uint8], recipe: DataRecipe, seed: int) -> Judgement:
    """Return the judgement on decoded images.

    Args:
        source: where they came from.
        seen: what became of each item.
        thumbnails: uint8 `[N, 32, 32, 3]`, of each item that is ok.
        recipe: how strict to be, and how to split.
        seed: of the split.
    """
    items = source.items
    usable = [place for place, one in enumerate(seen) if one.state == "ok"]
    copies = find_copies(items, seen, usable, thumbnails, recipe.near_duplicate_bits)
    faults = [*source.faults, *_refused_files(items, seen, recipe)]
    if recipe.conflicts == "refuse":
        faults += [_conflict(items, places) for places in copies.conflicts]
    disputed = {place for places in copies.conflicts for place in places}
    kept = [place for place in usable if place not in disputed]
    splits, cut, dealing = _split(source, seen, kept, copies, recipe, seed)
    faults += dealing
    faults += _missing(source, splits)
    return Judgement(splits=splits, copies=copies, faults=tuple(faults), cut=cut)


def find_copies(
    items: Sequence[Item], seen: Sequence[Seen], usable: Sequence[int], thumbnails: npt.NDArray[np.uint8], bits: int
) -> Copies:
    """Return which of the usable items are equal or nearly so."""
    by_pixels: dict[str, list[int]] = defaultdict(list)
    for place in usable:
        by_pixels[seen[place].pixels].append(place)
    equal = tuple(tuple(places) for places in by_pixels.values() if len(places) > 1)
    groups = Groups(len(items))
    for places in equal:
        for place in places[1:]:
            groups.join(places[0], place)
    near_duplicates(thumbnails, bits, groups, [places[0] for places in by_pixels.values()])
    members: dict[int, list[int]] = defaultdict(list)
    for place in usable:
        members[groups.find(place)].append(place)
    near = (tuple(places) for places in members.values() if len({seen[place].pixels for place in places}) > 1)
    return Copies(
        equal=equal,
        conflicts=tuple(places for places in equal if len({items[place].label for place in places}) > 1),
        near=tuple(near),
        group={place: groups.find(place) for place in usable},
    )


def _refused_files(items: Sequence[Item], seen: Sequence[Seen], recipe: DataRecipe) -> list[Fault]:
    """Return a fault for each file that the recipe does not allow to leave out."""
    refused = {"changed"} | ({"corrupt"} if recipe.corrupt == "refuse" else set())
    return [
        Fault(where=shown(item.name), problem=one.reason) for item, one in zip(items, seen, strict=True) if one.state in refused
    ]


def _conflict(items: Sequence[Item], places: Iterable[int]) -> Fault:
    where = ", ".join(shown(items[place].name) for place in places)
    labels = sorted({shown(items[place].label) for place in places})
    return Fault(where=where, problem="the same image under two labels", got=" and ".join(labels), expected="one label")


def _split(
    source: Source, seen: Sequence[Seen], kept: Sequence[int], copies: Copies, recipe: DataRecipe, seed: int
) -> tuple[dict[Split, tuple[int, ...]], tuple[Split, ...], list[Fault]]:
    """Return the places in each split, the splits that were cut from the source's own train, and faults."""
    missing: tuple[Split, ...] = tuple(split for split in ("val", "test") if split not in source.given)
    fractions = {"val": recipe.val_fraction, "test": recipe.test_fraction}
    own: dict[int, Split] = {place: source.items[place].split or "train" for place in kept}
    sets: dict[int, list[int]] = defaultdict(list)
    for place, split in own.items():
        if split == "train":
            sets[copies.group[place]].append(place)
    # The smallest digest stands for a set: another copy that joins it changes its draw as rarely as can be.
    units = [
        Unit(key=min(seen[p].digest for p in places), labels=frozenset(source.items[p].label for p in places))
        for places in sets.values()
    ]
    faults: list[Fault] = []
    if missing and units:
        dealt, faults = deal(
            units,
            seed=seed,
            val_fraction=fractions["val"] if "val" in missing else 0.0,
            test_fraction=fractions["test"] if "test" in missing else 0.0,
        )
        own.update((place, split) for places, split in zip(sets.values(), dealt, strict=True) for place in places)
    splits = {split: tuple(place for place in kept if own[place] == split) for split in SPLITS}
    return splits, missing if source.given else (), faults


def _missing(source: Source, splits: dict[Split, tuple[int, ...]]) -> list[Fault]:
    """Return a fault for each class that has images, but no usable one where it needs one."""
    present = {split: {source.items[place].label for place in places} for split, places in splits.items()}
    listed = Counter(item.label for item in source.items)
    faults = []
    for label in sorted(listed):
        own = [split for split in source.given if label in present[split]]
        if not any(label in labels for labels in present.values()):
            faults.append(Fault(where=shown(label), problem="a class without usable images", got=f"{listed[label]} unusable"))
        elif "train" in source.given and "train" not in own:
            got = f"images in {' and '.join(own)} only"
            faults.append(Fault(where=shown(label), problem="a class without usable images in train", got=got))
        elif "test" in source.given and "test" not in own:
            hint = "without test images nothing can be claimed of it"
            faults.append(Fault(where=shown(label), problem="a class without usable images in test", hint=hint))
    return faults
