"""Puts a judgement into words and numbers: the hygiene report, its warnings, and what leaks from split to split."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from edgetune.artefacts import Split
from edgetune.data.decoding import Seen
from edgetune.data.figures import account_of_heads, unseen_labels
from edgetune.data.hygiene import Hygiene, Leak
from edgetune.data.judge import Judgement
from edgetune.data.listing import shown
from edgetune.data.source import SPLITS, Source
from edgetune.data.targets import disagreements
from edgetune.data.unlabelled import Unlabelled
from edgetune.errors import Fault
from edgetune.recipe import DataRecipe

__all__ = ["account_for"]

IMBALANCE_TO_SAY = 10.0
NAMES_TO_SAY = 5


def account_for(
    source: Source,
    seen: Sequence[Seen],
    judgement: Judgement,
    unlabelled: Unlabelled,
    recipe: DataRecipe,
    image_size: int,
) -> tuple[Hygiene, tuple[Fault, ...]]:
    """Return the report on a source and all faults that forbid to use it under the recipe."""
    names = [shown(item.name) for item in source.everything]
    leaks = _leakage(source, seen, judgement, names)
    faults = [*judgement.faults, *(_leak_faults(leaks) if recipe.leakage == "refuse" else ())]
    table = _table(source, judgement)
    ok = [one for one in seen[: len(source.items)] if one.state == "ok"]
    imbalance = _imbalance([table[shown(label)] for label in source.strata if label not in source.loose])
    unreadable = {name: one.reason for name, one in zip(names, seen, strict=True) if one.state == "unreadable"}
    copies = judgement.copies
    # Near-duplicates may well have values that differ a little.
    near_conflicts = [
        group
        for group in copies.near
        if disagreements(source.heads, [source.items[place].targets for place in group], values=False)
    ]
    partial = Hygiene(
        source=shown(source.name),
        listed=len(source.items),
        usable=sum(len(places) for places in judgement.splits.values()),
        image_size=image_size,
        given_splits=source.given,
        classes=table,
        widths=_spread([one.width for one in ok]),
        heights=_spread([one.height for one in ok]),
        conversions=dict(sorted(Counter(note for one in ok for note in one.notes).items())),
        skipped=dict(sorted((source.skipped | unreadable).items())),
        corrupt={name: one.reason for name, one in zip(names, seen, strict=True) if one.state == "corrupt"},
        duplicates=_named(names, copies.equal),
        near_duplicates=_named(names, copies.near),
        conflicts=_named(names, copies.conflicts),
        near_conflicts=_named(names, near_conflicts),
        leakage=leaks,
        imbalance=imbalance,
        heads=() if source.is_classifier else account_of_heads(source, judgement.splits),
        unlabelled=len(unlabelled.kept),
        unlabelled_copies=unlabelled.copies,
        problems=tuple(str(fault) for fault in faults),
        warnings=(),
    )
    return partial.model_copy(update={"warnings": tuple(_warnings(partial, source, judgement, recipe))}), tuple(faults)


def _named(names: Sequence[str], sets: Iterable[Iterable[int]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names[place] for place in places) for places in sets)


def _table(source: Source, judgement: Judgement) -> dict[str, dict[str, int]]:
    counts = Counter((source.items[place].label, split) for split, places in judgement.splits.items() for place in places)
    return {shown(label): {split: counts[label, split] for split in SPLITS} for label in source.strata}


def _spread(sides: list[int]) -> tuple[int, int, int] | None:
    return (min(sides), statistics.median_high(sides), max(sides)) if sides else None


def _imbalance(classes: Iterable[dict[str, int]]) -> float | None:
    trains = sorted(row["train"] for row in classes)
    return round(trains[-1] / trains[0], 2) if trains and trains[0] else None


def _leakage(source: Source, seen: Sequence[Seen], judgement: Judgement, names: Sequence[str]) -> tuple[Leak, ...]:
    """Return the copies across splits. Splits that edgetune cut itself have none between them."""
    by_group: dict[Split, dict[int, list[int]]] = {split: defaultdict(list) for split in SPLITS}
    for split, places in judgement.splits.items():
        for place in places:
            by_group[split][judgement.copies.group[place]].append(place)
    leaks = []
    pairs_of_splits: tuple[tuple[Split, Split], ...] = (("test", "train"), ("val", "train"), ("test", "val"))
    for into, origin in pairs_of_splits:
        pairs, exact = [], 0
        for place in judgement.splits[into]:
            twins = by_group[origin].get(judgement.copies.group[place], [])
            if not twins:
                continue
            equal = [twin for twin in twins if seen[twin].pixels == seen[place].pixels]
            exact += bool(equal)
            pairs.append((names[place], names[(equal or twins)[0]]))
        if pairs:
            points = round(100 * len(pairs) / len(judgement.splits[into]), 2)
            near = len(pairs) - exact
            leaks.append(Leak(into=into, source=origin, exact=exact, near=near, flattered_points=points, pairs=tuple(pairs)))
    return tuple(leaks)


def _leak_faults(leaks: Iterable[Leak]) -> list[Fault]:
    return [
        Fault(where=name, problem=f"a {leak.into} image that is also in {leak.source}, or nearly so", got=twin)
        for leak in leaks
        for name, twin in leak.pairs
    ]


def _warnings(report: Hygiene, source: Source, judgement: Judgement, recipe: DataRecipe) -> list[str]:
    fractions = {"val": recipe.val_fraction, "test": recipe.test_fraction}
    said = [source.cut_words.format(split=split, percent=f"{100 * fractions[split]:g}") for split in judgement.cut]
    said += source.notes
    said += [_leak_warning(leak) for leak in report.leakage]
    said += [_counted(len(report.skipped), "file was", "files were", "passed over", report.skipped)] if report.skipped else []
    if report.corrupt and recipe.corrupt == "skip":
        said.append(_counted(len(report.corrupt), "file", "files", "cannot be decoded and left out", report.corrupt))
    if report.conflicts and recipe.conflicts == "skip":
        disputed = [name for names in report.conflicts for name in names]
        other = "under another label" if source.is_classifier else "with different targets"
        said.append(_counted(len(disputed), "image", "images", f"with the same picture {other}, left out", disputed))
    if report.near_conflicts:
        first = [" ~ ".join(names[:2]) for names in report.near_conflicts]
        said.append(_counted(len(first), "set", "sets", "of near-duplicates under several labels", first))
    if source.outside:
        one, many = ("path leads", "paths lead") if source.apart else ("link leads", "links lead")
        said.append(_counted(len(source.outside), one, many, "out of the folder, followed", source.outside))
    if report.imbalance and report.imbalance >= IMBALANCE_TO_SAY:
        said.append(f"the largest class has {report.imbalance:g} times as many train images as the smallest")
    if "val" in source.given:
        loose = {shown(label) for label in source.loose}
        absent = [label for label, row in report.classes.items() if not row["val"] and row["train"] and label not in loose]
        said += [_counted(len(absent), "class has", "classes have", "no validation image", absent)] if absent else []
    for split, labels in unseen_labels(report.heads).items():
        said.append(_counted(len(labels), "label is", "labels are", f"shown by no {split} image", labels))
    if copies := [f"{name} = {twin}" for name, twin in report.unlabelled_copies.items()]:
        what = "a copy of a validation or test image, left out" if len(copies) == 1 else "copies of such images, left out"
        said.append(_counted(len(copies), "unlabelled image is", "unlabelled images are", what, copies))
    return said


def _leak_warning(leak: Leak) -> str:
    count = leak.exact + leak.near
    verb = "image has" if count == 1 else "images have"
    effect = "accuracy is flattered" if leak.into == "test" else "the choice of weights is flattered"
    text = f"{count} {leak.into} {verb} a copy ({leak.exact} equal, {leak.near} nearly) in {leak.source}"
    return f"{text}: {effect} by up to {leak.flattered_points:.1f} points ({_some(' = '.join(pair) for pair in leak.pairs)})"


def _counted(count: int, one: str, many: str, what: str, names: Iterable[str]) -> str:
    return f"{count} {one if count == 1 else many} {what}: {_some(names)}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMES_TO_SAY} more" if len(listed) > NAMES_TO_SAY else ""
    return ", ".join(listed[:NAMES_TO_SAY]) + more
