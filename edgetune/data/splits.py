"""Deals images into train, validation and test set by their content.

The unit is a set of (near-)duplicates, which stays together. Each unit draws a number u in [0, 1) from a hash of the seed
and its content, so that names and the order of files do not matter. The n units of a class are ordered by u; with fractions t
and v the first round(t n) are test, the next round(v n) validation, at least one each. So every class has its share of each
split, and adding an image moves at most the one on either border.

At last, a class that has no unit in one of the splits is given the unit whose u is nearest.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.artefacts import Split
from edgetune.errors import Fault

__all__ = ["Unit", "deal", "draw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Images that must stay together.

    Attributes:
        key: stands for their content.
        labels: the classes among them: one, but for near-duplicates across classes.
    """

    key: str
    labels: frozenset[str]


def draw(seed: int, key: str) -> float:
    """Return the number in [0, 1) that a unit draws."""
    return int(hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()[:13], 16) / 16**13


def deal(units: Sequence[Unit], *, seed: int, val_fraction: float, test_fraction: float) -> tuple[list[Split], list[Fault]]:
    """Return the split of each unit, and a fault for each class that cannot be in every split.

    Args:
        units: with different keys.
        seed: of the draw.
        val_fraction: the part for validation; 0 makes no such split.
        test_fraction: the part for the test; 0 makes no such split.
    """
    drawn = [draw(seed, unit.key) for unit in units]
    homes: dict[str, list[int]] = defaultdict(list)
    for place, unit in enumerate(units):
        homes[min(unit.labels)].append(place)
    splits: list[Split] = ["train"] * len(units)
    for places in homes.values():
        ordered = sorted(places, key=lambda place: (drawn[place], units[place].key))
        tests, vals = _shares(len(places), val_fraction, test_fraction)
        for rank, place in enumerate(ordered):
            splits[place] = "test" if rank < tests else "val" if rank < tests + vals else "train"
    wanted: tuple[Split, ...] = ("train", *(("test",) if test_fraction else ()), *(("val",) if val_fraction else ()))
    return splits, _repair(units, drawn, splits, wanted)


def _shares(count: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Return how many of a class go to test and validation: at least one each, but never all."""
    tests = max(1, round(count * test_fraction)) if test_fraction else 0
    vals = max(1, round(count * val_fraction)) if val_fraction else 0
    while tests + vals >= count and max(tests, vals) > 1:
        tests, vals = (tests - 1, vals) if tests >= vals else (tests, vals - 1)
    return tests, vals


def _repair(units: Sequence[Unit], drawn: Sequence[float], splits: list[Split], wanted: tuple[Split, ...]) -> list[Fault]:
    """Move units, as few as possible, until each class is in each split; return the faults of classes that cannot be."""
    members: dict[str, list[int]] = defaultdict(list)
    counts: Counter[tuple[str, Split]] = Counter()
    for place, unit in enumerate(units):
        for label in unit.labels:
            members[label].append(place)
            counts[label, splits[place]] += 1
    faults = []
    for label in sorted(members):
        for split in wanted:
            if counts[label, split]:
                continue
            spare = [p for p in members[label] if all(counts[other, splits[p]] > 1 for other in units[p].labels)]
            if not spare:
                faults.append(_too_few(label, len(members[label]), wanted))
                break
            # Test and validation lie at the low end of u, train at the high end.
            chosen = (max if split == "train" else min)(spare, key=lambda place: (drawn[place], units[place].key))
            for other in units[chosen].labels:
                counts[other, splits[chosen]] -= 1
                counts[other, split] += 1
            splits[chosen] = split
    return faults


def _too_few(label: str, count: int, wanted: tuple[Split, ...]) -> Fault:
    return Fault(
        where=label,
        problem=f"needs at least {len(wanted)} different images, one for each of {', '.join(sorted(wanted))}",
        got=f"{count}, near-duplicates counted once",
        hint="near-duplicates bind them to another class" if count >= len(wanted) else "add images",
    )
