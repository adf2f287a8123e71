"""From what was seen of every image to a judgement: what is usable, what belongs together, which split each image is in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.artefacts import Split
from edgetune.data.decoding import Seen
from edgetune.data.duplicates import Groups, near_duplicates
from edgetune.data.listing import shown
from edgetune.data.source import SPLITS, Item, Source
from edgetune.data.splits import Unit, deal
from edgetune.data.targets import disagreements
from edgetune.device.heads import Head, targets_of
from edgetune.errors import Fault
from edgetune.recipe import DataRecipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Copies", "Judgement", "find_copies", "judge"]

LEAST_UNITS = 5
"""A loose stratum with fewer pictures is dealt together with others: a share of so few is no share."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which usable images are copies of each other. Sets hold places of items, in order.

    Attributes:
        equal: sets of two or more equal pictures.
        conflicts: those of them under several labels, or with other targets that differ.
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
    usable = [place for place, one in enumerate(seen[: len(items)]) if one.state == "ok"]
    copies = find_copies(items, seen[: len(items)], usable, thumbnails, recipe.near_duplicate_bits, source.heads)
    faults = [*source.faults, *_refused_files(source.everything, seen, recipe)]
    if recipe.conflicts == "refuse":
        faults += [_conflict(source, places) for places in copies.conflicts]
    disputed = {place for places in copies.conflicts for place in places}
    kept = [place for place in usable if place not in disputed]
    splits, cut, dealing = _split(source, seen, kept, copies, recipe, seed)
    faults += dealing
    faults += _missing(source, splits)
    faults += [] if source.is_classifier else _untold(source, splits)
    return Judgement(splits=splits, copies=copies, faults=tuple(faults), cut=cut)


def find_copies(
    items: Sequence[Item],
    seen: Sequence[Seen],
    usable: Sequence[int],
    thumbnails: npt.NDArray[np.uint8],
    bits: int,
    heads: Sequence[Head],
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
        conflicts=tuple(places for places in equal if disagreements(heads, [items[place].targets for place in places])),
        near=tuple(near),
        group={place: groups.find(place) for place in usable},
    )


def _refused_files(items: Sequence[Item], seen: Sequence[Seen], recipe: DataRecipe) -> list[Fault]:
    """Return a fault for each file that the recipe does not allow to leave out."""
    refused = {"changed"} | ({"corrupt"} if recipe.corrupt == "refuse" else set())
    return [
        Fault(where=shown(item.name), problem=one.reason) for item, one in zip(items, seen, strict=True) if one.state in refused
    ]


def _conflict(source: Source, places: Sequence[int]) -> Fault:
    items = source.items
    where = ", ".join(shown(items[place].name) for place in places)
    if source.is_classifier:
        labels = sorted({shown(items[place].label) for place in places})
        return Fault(where=where, problem="the same image under two labels", got=" and ".join(labels), expected="one label")
    got = ", ".join(shown(text) for text in disagreements(source.heads, [items[place].targets for place in places]))
    return Fault(where=where, problem="the same image with different targets", got=got)


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
    keys = [min(seen[p].digest for p in places) for places in sets.values()]
    strata = _merged([frozenset(source.items[p].label for p in places) for places in sets.values()], source.loose)
    units = [Unit(key=key, labels=labels) for key, labels in zip(keys, strata, strict=True)]
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


def _merged(labels: Sequence[frozenset[str]], loose: frozenset[str]) -> list[frozenset[str]]:
    """Return the strata of each unit with those that are loose and small made one, or part of the largest if that is small.

    Unlike a class, such a stratum (a rare label, a bin of values) need not be in every split.
    """
    counts = Counter(label for unit in labels for label in unit)
    small = {label for label in counts if label in loose and counts[label] < LEAST_UNITS}
    if not small:
        return list(labels)
    together = sum(bool(unit & small) for unit in labels)
    largest = max(counts, key=lambda label: (counts[label], label))
    target = largest if together < LEAST_UNITS else min(small)
    return [(unit - small) | {target} if unit & small else unit for unit in labels]


def _missing(source: Source, splits: dict[Split, tuple[int, ...]]) -> list[Fault]:
    """Return a fault for each class that has images, but no usable one where it needs one."""
    present = {split: {source.items[place].label for place in places} for split, places in splits.items()}
    listed = Counter(item.label for item in source.items if item.label not in source.loose)
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


def _untold(source: Source, splits: dict[Split, tuple[int, ...]]) -> list[Fault]:
    """Return a fault for each task of which nothing is known in a split: it could not be learnt, chosen or claimed."""
    faults = [Fault(where="", problem=f"no usable {split} image") for split, places in splits.items() if not places]
    for head, columns in zip(source.heads, targets_of(source.heads), strict=True):
        for split, places in splits.items():
            told = any(value == value for place in places for value in source.items[place].targets[columns])
            if places and not told:
                hint = "fill in more cells" if source.given else "fill in more cells, or choose another seed"
                faults.append(Fault(where=f"tasks.{head.name}", problem=f"not known of any {split} image", hint=hint))
    return faults
