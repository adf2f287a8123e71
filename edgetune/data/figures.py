"""An account of each task: how often each label is shown, how values lie, and of how many images nothing is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from edgetune.artefacts import Split
from edgetune.data.hygiene import HeadAccount, Spread
from edgetune.data.listing import shown
from edgetune.data.source import SPLITS, Source
from edgetune.data.targets import Targets, target_names
from edgetune.device.heads import REGRESSION, SINGLE_LABEL, Head, targets_of

__all__ = ["account_of_heads", "unseen_labels"]

Rows = Mapping[Split, Sequence[Targets]]


def account_of_heads(source: Source, splits: Mapping[Split, Sequence[int]]) -> tuple[HeadAccount, ...]:
    """Return the account of each head of a source, given the places of the usable items in each split."""
    accounts = []
    for head, columns in zip(source.heads, targets_of(source.heads), strict=True):
        rows = {split: [source.items[place].targets[columns] for place in places] for split, places in splits.items()}
        accounts.append(_account(head, rows))
    return tuple(accounts)


def _account(head: Head, rows: Rows) -> HeadAccount:
    together = [row for part in rows.values() for row in part]
    unknown = {
        shown(name): count
        for number, name in enumerate(target_names([head]))
        if (count := sum(math.isnan(row[number]) for row in together))
    }
    values = {}
    if head.kind == REGRESSION:
        columns = {name: [row[number] for row in together] for number, name in enumerate(head.columns)}
        values = {shown(name): spread for name, column in columns.items() if (spread := _spread(column))}
    return HeadAccount(
        name=shown(head.name),
        kind=head.kind,
        labels={} if head.kind == REGRESSION else _labels(head, rows),
        values=values,
        unknown=unknown,
    )


def _labels(head: Head, rows: Rows) -> dict[str, dict[str, int]]:
    def count(part: Sequence[Targets], number: int) -> int:
        if head.kind == SINGLE_LABEL:
            return sum(row[0] == number for row in part)
        return sum(row[number] == 1 for row in part)

    return {shown(name): {split: count(rows[split], number) for split in SPLITS} for number, name in enumerate(head.columns)}


def _spread(column: Iterable[float]) -> Spread | None:
    import numpy as np

    known = np.array([value for value in column if not math.isnan(value)])
    if not len(known):
        return None
    return Spread(
        smallest=float(known.min()), median=float(np.median(known)), largest=float(known.max()), std=float(known.std())
    )


def unseen_labels(accounts: Iterable[HeadAccount]) -> dict[Split, list[str]]:
    """Return, of train and test, the labels that no image there shows: they can hardly be learnt, or not be claimed."""
    found: dict[Split, list[str]] = {"train": [], "test": []}
    for account in accounts:
        for split, labels in found.items():
            labels += [f"{account.name}: {label}" for label, row in account.labels.items() if not row[split]]
    return {split: labels for split, labels in found.items() if labels}
