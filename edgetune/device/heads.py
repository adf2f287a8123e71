"""What the columns of a model's output mean: the heads of the network, one for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "Head", "column_names", "columns_of", "default_heads", "heads_from_json", "heads_to_json", "targets_of"]

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single-label", "multi-label", "regression"
KINDS = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)


@dataclass(frozen=True)
class Head:
    """One task, and its columns of `logits`.

    Attributes:
        name: of the task.
        kind: `single-label`: one logit per class, the largest decides; `multi-label`: one logit per label, whose sigmoid is the
            probability of that label; `regression`: the values themselves, in the units of the training data.
        columns: the names of the classes, labels or values, in the order of the logits.
        thresholds: multi-label: per column, the probability from which on the label is decided; empty until training has
            chosen them, and for other kinds.

    Raises:
        ValueError: the kind is not known, a name is missing or stands there twice, or the thresholds do not fit.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        faults = []
        if self.kind not in KINDS:
            faults.append(f"kind: got {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not self.columns or len(set(self.columns)) != len(self.columns):
            faults.append("columns: expected one name or more, each of them once")
        if self.thresholds and (self.kind != MULTI_LABEL or len(self.thresholds) != len(self.columns)):
            faults.append("thresholds: expected one per column of a multi-label head, and none for other kinds")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            faults.append("thresholds: expected probabilities from 0 to 1")
        if faults:
            raise ValueError(f"head {self.name!r}: {'; '.join(faults)}")

    @property
    def target_width(self) -> int:
        """How many numbers say what is right for one image: the class's index, or one per label or value."""
        return 1 if self.kind == SINGLE_LABEL else len(self.columns)


def default_heads(classes: Sequence[str]) -> tuple[Head, ...]:
    """Return the one head of an ordinary classifier."""
    return (Head(name="label", kind=SINGLE_LABEL, columns=tuple(classes)),)


def columns_of(heads: Sequence[Head]) -> list[slice]:
    """Return which columns of logits `[N, C]` belong to each head."""
    return _slices([len(head.columns) for head in heads])


def targets_of(heads: Sequence[Head]) -> list[slice]:
    """Return which columns of targets `[N, T]` belong to each head."""
    return _slices([head.target_width for head in heads])


def _slices(widths: Sequence[int]) -> list[slice]:
    ends = [sum(widths[: index + 1]) for index in range(len(widths))]
    return [slice(end - width, end) for end, width in zip(ends, widths)]


def column_names(heads: Sequence[Head]) -> tuple[str, ...]:
    """Return a name for every logit: the class's own where there is one head, else with the head's name before it."""
    if len(heads) == 1:
        return heads[0].columns
    return tuple(
        column if head.columns == (head.name,) else f"{head.name}: {column}" for head in heads for column in head.columns
    )


def heads_to_json(heads: Sequence[Head]) -> list[dict[str, Any]]:
    """Return heads as JSON types, as they stand in a manifest."""
    return [
        {"name": head.name, "kind": head.kind, "columns": list(head.columns), "thresholds": list(head.thresholds)}
        for head in heads
    ]


def heads_from_json(content: Any) -> tuple[Head, ...]:
    """Return what `heads_to_json` wrote.

    Raises:
        ValueError: it is not a list of heads.
    """
    if not isinstance(content, list) or not content:
        raise ValueError("heads: expected a list of tables, not empty")
    heads = []
    for entry in content:
        if not isinstance(entry, Mapping) or set(entry) != {"name", "kind", "columns", "thresholds"}:
            raise ValueError("heads: expected name, kind, columns and thresholds of each, and nothing else")
        columns, thresholds = entry["columns"], entry["thresholds"]
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in [*columns, entry["name"]]):
            raise ValueError("heads: expected names as texts")
        if not isinstance(thresholds, list) or not all(isinstance(value, (int, float)) for value in thresholds):
            raise ValueError("heads: expected thresholds as numbers")
        heads.append(Head(entry["name"], entry["kind"], tuple(columns), tuple(float(value) for value in thresholds)))
    return tuple(heads)
