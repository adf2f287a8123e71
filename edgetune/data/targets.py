"""What is right for an image, as numbers: their names, where they contradict each other, and the groups that they form."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from edgetune.device.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Head, targets_of

__all__ = ["NONE", "UNKNOWN", "Targets", "column_heads", "disagreements", "strata_of", "target_names"]

NONE, UNKNOWN = "(none)", "(not known)"
BINS = 5
BIN_ROWS = 5
Targets = tuple[float, ...]
"""The numbers of one image: float `[T]`, NaN where it is not known; see `Dataset.targets`."""


def column_heads(heads: Sequence[Head]) -> list[Head]:
    """Return the head of each of the T columns of targets."""
    return [head for head in heads for _ in range(head.target_width)]


def target_names(heads: Sequence[Head]) -> list[str]:
    """Return a name for each of the T columns of targets: the task's, with the label's or value's where it has several."""
    names = []
    for head in heads:
        columns = () if head.kind == SINGLE_LABEL or head.columns == (head.name,) else head.columns
        names += [f"{head.name}: {column}" for column in columns] or [head.name]
    return names


def disagreements(heads: Sequence[Head], rows: Sequence[Targets], *, values: bool = True) -> list[str]:
    """Return on what several images' targets contradict each other, in words; what is not known contradicts nothing.

    Args:
        heads: the tasks.
        rows: one per image, each of width T.
        values: whether the numbers of regressions are looked at too.
    """
    if len(set(rows)) < 2:
        return []
    said = []
    for name, head, column in zip(target_names(heads), column_heads(heads), zip(*rows, strict=True), strict=True):
        found = sorted({value for value in column if not math.isnan(value)})
        if len(found) > 1 and (values or head.kind != REGRESSION):
            words = [head.columns[int(value)] if head.kind == SINGLE_LABEL else f"{value:g}" for value in found]
            said.append(f"{name} is {' and '.join(words)}")
    return said


def strata_of(heads: Sequence[Head], rows: Sequence[Targets]) -> tuple[list[str], tuple[str, ...], frozenset[str]]:
    """Group images by the first task, so that splits and samples of them are alike.

    By class where it is one of a single label; by the rarest of an image's labels where it is one of several; by up to five
    quantile bins of the first value where it is a regression.

    Returns:
        The stratum of each image, the names of all strata in their order, and those of them that are no classes. Without
        heads (of a source that is refused anyway) there are no strata.
    """
    if not heads:
        return [""] * len(rows), (), frozenset()
    first = heads[0]
    if first.kind == SINGLE_LABEL:
        strata = [UNKNOWN if math.isnan(row[0]) else first.columns[int(row[0])] for row in rows]
        order: Sequence[str] = first.columns
        loose = frozenset({UNKNOWN} - set(first.columns))
    else:
        columns = targets_of(heads)[0]
        parts = [row[columns] for row in rows]
        strata, order = _by_rarest_label(first, parts) if first.kind == MULTI_LABEL else _by_value([part[0] for part in parts])
        loose = frozenset(strata)
    names = list(dict.fromkeys([*order, NONE, UNKNOWN]))
    present = set(strata)
    kept = tuple(name for name in names if name in present or (first.kind == SINGLE_LABEL and name in first.columns))
    return strata, kept, loose & set(kept)


def _by_rarest_label(head: Head, parts: Sequence[Targets]) -> tuple[list[str], Sequence[str]]:
    counts = Counter(index for part in parts for index, value in enumerate(part) if value == 1)
    rank = {index: place for place, index in enumerate(sorted(counts, key=lambda index: (counts[index], index)))}
    strata = []
    for part in parts:
        labels = [index for index, value in enumerate(part) if value == 1]
        if labels:
            strata.append(head.columns[min(labels, key=rank.__getitem__)])
        else:
            strata.append(UNKNOWN if all(map(math.isnan, part)) else NONE)
    return strata, head.columns


def _by_value(values: Sequence[float]) -> tuple[list[str], Sequence[str]]:
    known = sorted(value for value in values if not math.isnan(value))
    bins = max(1, min(BINS, len(known) // BIN_ROWS))
    edges = sorted({known[len(known) * number // bins] for number in range(1, bins)} - set(known[:1]))
    starts = [0, *(known.index(edge) for edge in edges), len(known)]
    # Numbered, so that bins whose limits look alike have names of their own.
    names = [
        f"{number}: {known[start]:.4g} to {known[end - 1]:.4g}"
        for number, (start, end) in enumerate(itertools.pairwise(starts), start=1)
        if known
    ]
    return [UNKNOWN if math.isnan(value) else names[bisect_right(edges, value)] for value in values], names
