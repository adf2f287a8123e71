"""The rows that compare a precision with fp32 head by head: decisions or values, and accuracy, each as its kind of task has it.

Of a single label: decisions and top-1. Of several labels: the decisions at the thresholds, and mean average precision. Of a
regression: how far the values moved, and the root mean squared error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from edgetune.artefacts import VerdictRow
from edgetune.device.decisions import decisions
from edgetune.device.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Head, columns_of, targets_of
from edgetune.verify import rows
from edgetune.verify.bootstrap import judged_change, mean_precisions, resampled, rmses
from edgetune.verify.limits import Limits
from edgetune.verify.statistics import images_needed

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Targets = npt.NDArray[np.float32]

__all__ = ["compared", "names_against_fp32", "prefix", "row_names"]

VALUES, MAP, RMSE = "values", "mAP", "RMSE"
NAMES = {SINGLE_LABEL: (rows.DECISIONS, rows.TOP1), MULTI_LABEL: (rows.DECISIONS, MAP), REGRESSION: (VALUES, RMSE)}
UNKNOWN = "nothing is known of any test image"
LARGEST_RATIO = 1e9
"""Stands for the growth of an error that was zero."""


def prefix(head: Head, heads: Sequence[Head]) -> str:
    """Return what a row's name begins with: the head's name where there are several."""
    return f"{head.name}: " if len(heads) > 1 else ""


def names_against_fp32(candidate: str) -> dict[str, tuple[str, str]]:
    """Return how the rows of each kind of task are called where a precision is held against fp32."""
    of = rows.against_fp32
    return {kind: (of(candidate, decided), of(candidate, accurate)) for kind, (decided, accurate) in NAMES.items()}


def row_names(heads: Sequence[Head], names: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of each row of `compared`, in their order."""
    for head in heads:
        decided, accurate = names[head.kind]
        yield "decision", prefix(head, heads) + decided
        yield "accuracy", prefix(head, heads) + accurate


def compared(
    fp32: Logits,
    other: Logits,
    targets: Targets,
    heads: Sequence[Head],
    limits: Limits,
    called: Mapping[str, tuple[str, str]],
) -> Iterator[VerdictRow]:
    """Yield the verdicts on a precision against fp32, or on any candidate against its baseline: two rows for each head.

    Args:
        fp32: logits of the baseline, float32 `[N, C]`, all finite.
        other: logits of the candidate, likewise.
        targets: float32 `[N, T]`, NaN where not known.
        heads: what the columns mean.
        limits: what must hold.
        called: by kind of task, how the row of decisions and that of accuracy are called.
    """
    names = [name for _, name in row_names(heads, called)]
    parts = zip(heads, columns_of(heads), targets_of(heads), names[::2], names[1::2], strict=True)
    for head, columns, place, decided, accurate in parts:
        compare = _KINDS.get(head.kind, _regression)
        yield from compare(head, fp32[:, columns], other[:, columns], targets[:, place], limits, decided, accurate)


def _single_label(
    head: Head, fp32: Logits, other: Logits, targets: Targets, limits: Limits, decided: str, accurate: str
) -> Iterator[VerdictRow]:
    first, second = decisions(fp32, head)[:, 0], decisions(other, head)[:, 0]
    yield rows.decision(first, second, limits.top1_agreement_percent, decided)
    known = np.isfinite(targets[:, 0])
    if not known.any():
        yield rows.undecided("accuracy", accurate, UNKNOWN)
        return
    right = targets[known, 0]
    yield rows.accuracy(first[known] == right, second[known] == right, limits.top1_drop_points, accurate)


def _multi_label(
    head: Head, fp32: Logits, other: Logits, targets: Targets, limits: Limits, decided: str, accurate: str
) -> Iterator[VerdictRow]:
    yield _label_decisions(decisions(fp32, head) == decisions(other, head), limits.top1_agreement_percent, decided)
    known = np.isfinite(targets).any(axis=1)
    if not (targets == 1).any():
        yield rows.undecided("accuracy", accurate, "no test image has any of the labels")
        return
    yield _precision(fp32[known], other[known], targets[known], limits.map_drop_points, accurate)


def _label_decisions(same: npt.NDArray[np.bool_], tolerance_percent: float, name: str) -> VerdictRow:
    """Judge how many decisions about a label of an image stayed the same: `[N, L]`."""
    percent, whole = 100 * float(same.mean()), 100 * float(same.all(axis=1).mean())
    kept = percent >= tolerance_percent
    return VerdictRow(
        kind="decision",
        name=name,
        verdict="KEPT" if kept else "BROKEN",
        figure=f"{percent:.2f} % of the labels the same, of {whole:.2f} % of the images all",
        limit=f"≥ {tolerance_percent:g} %",
        reason="" if kept else f"{same.size - int(same.sum())} of {same.size} decisions changed",
        data={
            "same": int(same.sum()),
            "decisions": same.size,
            "images": len(same),
            "percent": percent,
            "images_percent": whole,
        },
    )


def _precision(fp32: Logits, other: Logits, targets: Targets, tolerance_points: float, name: str) -> VerdictRow:
    """Judge whether the mean average precision fell by no more than a tolerance: a paired bootstrap over images."""

    def drop_points(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return 100 * (mean_precisions(fp32, targets, weights) - mean_precisions(other, targets, weights))

    images = len(targets)
    drop = float(drop_points(np.ones((images, 1), np.float32))[0])
    fewest = images_needed(tolerance_points / 100)
    found = judged_change(drop, resampled(drop_points, images), tolerance_points, images=images, fewest=fewest)
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=found.verdict,
        figure=f"{found.estimate:+.2f} points lost [{found.low:+.2f}, {found.high:+.2f}]",
        limit=f"≤ {tolerance_points:g} points",
        reason=found.reason,
        data={"test": "paired bootstrap", "tolerance_points": tolerance_points, **asdict(found)},
    )


def _regression(
    head: Head, fp32: Logits, other: Logits, targets: Targets, limits: Limits, decided: str, accurate: str
) -> Iterator[VerdictRow]:
    yield _values(head, fp32, other, targets, limits.top1_agreement_percent, decided)
    known = np.isfinite(targets).any(axis=1)
    if not known.any():
        yield rows.undecided("accuracy", accurate, UNKNOWN)
        return
    yield _errors(head, fp32[known], other[known], targets[known], limits.rmse_increase_percent, accurate)


def _values(head: Head, fp32: Logits, other: Logits, targets: Targets, tolerance_percent: float, name: str) -> VerdictRow:
    """Judge how far the values moved, in standard deviations of the truth.

    A value decides nothing, so the tolerance of decisions is read as a share of variance: d, the root of the mean squared
    difference, may be at most √(1 - agreement) standard deviations, 0.22 at 95 %. Rounding that is independent of the model's
    error adds d² to its squared error, so R² falls by at most those 5 points. Both models are deterministic and the tolerance
    speaks of these images, so there is no test.
    """
    spreads = [_spread(targets[:, i], fp32[:, i]) for i in range(len(head.columns))]
    moved = np.sqrt(np.square(other.astype(np.float64) - fp32).mean(axis=0))
    apart = {name: float(d) / spread for name, d, spread in zip(head.columns, moved, spreads, strict=True)}
    worst = max(apart, key=lambda column: apart[column])
    limit = math.sqrt(1 - tolerance_percent / 100)
    kept = apart[worst] <= limit
    return VerdictRow(
        kind="decision",
        name=name,
        verdict="KEPT" if kept else "BROKEN",
        figure=f"{apart[worst]:.3f} standard deviations apart{_of(worst, head)}",
        limit=f"≤ {limit:.3f}",
        reason="" if kept else "the values moved further than that",
        data={"apart": apart, "limit": limit, "images": len(fp32)},
    )


def _spread(truth: npt.NDArray[np.float32], answers: npt.NDArray[np.float32]) -> float:
    """Return the standard deviation of a value; of the baseline's answers where the truth is not known or never varies."""
    known = truth[np.isfinite(truth)].astype(np.float64)
    return float(known.std() if len(known) else 0.0) or float(answers.astype(np.float64).std()) or 1.0


def _errors(head: Head, fp32: Logits, other: Logits, targets: Targets, tolerance_percent: float, name: str) -> VerdictRow:
    """Judge whether the root mean squared error of every value grew by no more than a tolerance: a paired bootstrap."""
    counts = np.isfinite(targets).sum(axis=0)
    usable = np.flatnonzero(counts)
    columns = [head.columns[i] for i in usable]
    squared = [np.square(answers[:, usable].astype(np.float64) - targets[:, usable]).T for answers in (fp32, other)]

    def increase_percent(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        before, after = (rmses(errors, weights) for errors in squared)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(before == after, 1.0, after / before)
        # A sample without an image of the value stays NaN, an error where there was none is as bad as it gets.
        return np.asarray(100 * (np.minimum(ratio, LARGEST_RATIO) - 1))

    estimates = increase_percent(np.ones((len(targets), 1), np.float32))[:, 0]
    samples = resampled(increase_percent, len(targets))
    judged = [
        judged_change(float(estimate), sample, tolerance_percent, images=int(counts[i]), family=len(usable))
        for estimate, sample, i in zip(estimates, samples, usable, strict=True)
    ]
    found = dict(zip(columns, judged, strict=True))
    severity = ("KEPT", "INCONCLUSIVE", "BROKEN")
    worst = max(found, key=lambda column: (severity.index(found[column].verdict), found[column].high))
    change = found[worst]
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=change.verdict,
        figure=f"{change.estimate:+.2f} % [{change.low:+.2f}, {change.high:+.2f}]{_of(worst, head)}",
        limit=f"≤ {tolerance_percent:g} %",
        reason=change.reason,
        data={
            "test": "paired bootstrap",
            "tolerance_percent": tolerance_percent,
            "values": {column: asdict(one) for column, one in found.items()},
        },
    )


def _of(column: str, head: Head) -> str:
    return f" ({column})" if len(head.columns) > 1 else ""


_KINDS = {SINGLE_LABEL: _single_label, MULTI_LABEL: _multi_label}
