"""A candidate against a baseline file: image by image where the images are the same, else against the figures alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.artefacts import Head, VerdictName, VerdictRow
from edgetune.artefacts.comparison import ChangedDecision
from edgetune.device.decisions import decisions, is_classifier
from edgetune.device.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, columns_of, targets_of
from edgetune.gate.baseline import Baseline
from edgetune.gate.changed import changed_labels, worst_first
from edgetune.gate.images import Labelled
from edgetune.gate.judging import CALIBRATION, CALLED, CLASSES, NO_TOLERANCE
from edgetune.gate.tolerances import Tolerances
from edgetune.verify import rows
from edgetune.verify.classes import per_class
from edgetune.verify.reclaim import claimed
from edgetune.verify.statistics import images_needed, unpaired_drop
from edgetune.verify.tasks import prefix

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]

__all__ = ["NEVER_TIMED", "figure_changes", "figure_rows", "never_timed"]

NEVER_TIMED = "the baseline is figures alone: times of another machine or day are never compared; give its bundle"
OTHER_IMAGES = "the baseline was judged on other images"
NOT_KEPT = "the file of the baseline has no decisions"
NO_PROBABILITIES = "the baseline is figures alone, and they do not hold its probabilities; give its bundle"


def never_timed() -> Iterator[VerdictRow]:
    """Yield the rows on time and memory, none of them judged."""
    for kind, name in (("latency", "latency, batch 1"), ("latency", "cold start"), ("memory", "peak memory")):
        yield rows.skipped(kind, name, NEVER_TIMED)


def _same_images(baseline: Baseline, images: Labelled) -> bool:
    return baseline.images is not None and baseline.images.images_sha256 == images.images_sha256


def figure_rows(
    baseline: Baseline, candidate: Logits, images: Labelled, heads: Sequence[Head], allowed: Tolerances
) -> Iterator[VerdictRow]:
    """Yield the verdicts on what the candidate decides.

    Args:
        baseline: the file.
        candidate: float32 `[N, C]`, all finite, with the columns of `heads`.
        images: that were run.
        heads: of the baseline, with the candidate's thresholds.
        allowed: what must hold.
    """
    same = _same_images(baseline, images)
    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        logits, targets, named = candidate[:, columns], images.targets[:, place], prefix(head, heads)
        decided = baseline.decided(head.name) if same else None
        why_not = NOT_KEPT if same or baseline.images is None else OTHER_IMAGES
        yield _agreement(decided, decisions(logits, head), head, named, allowed, why_not)
        if head.kind == SINGLE_LABEL:
            yield from _single_label(baseline, decided, logits, targets[:, 0], head, named, allowed, heads, why_not)
        else:
            yield _claimed(baseline, logits, targets, head, named, allowed, heads)


def _agreement(
    first: npt.NDArray[np.int64] | None,
    second: npt.NDArray[np.int64],
    head: Head,
    named: str,
    allowed: Tolerances,
    why_not: str,
) -> VerdictRow:
    name = named + CALLED[head.kind][0]
    if first is None:
        return rows.skipped("decision", name, "the file of the baseline has no values" if head.kind == REGRESSION else why_not)
    row = rows.decision(first.ravel(), second.ravel(), allowed.agreement_percent, name)
    data = {**row.data, "samples": f"{len(first)} images"}
    skip = {} if allowed.agreement_percent else {"verdict": "SKIPPED", "limit": "", "reason": NO_TOLERANCE}
    return row.model_copy(update={"data": data, **skip})


def _single_label(
    baseline: Baseline,
    decided: npt.NDArray[np.int64] | None,
    logits: Logits,
    targets: npt.NDArray[np.float32],
    head: Head,
    named: str,
    allowed: Tolerances,
    heads: Sequence[Head],
    why_not: str,
) -> Iterator[VerdictRow]:
    known = np.isfinite(targets)
    labels = targets[known].astype(np.int64)
    name = named + CALLED[SINGLE_LABEL][1]
    right = decisions(logits, head)[known, 0] == labels
    if not known.any():
        yield rows.undecided("accuracy", name, "nothing is known of any image")
    elif decided is None:
        yield _unpaired(_claim(baseline, head, heads), right, allowed.accuracy_points, name)
    else:
        was = decided[known, 0] == labels
        row = rows.accuracy(was, right, allowed.accuracy_points, name)
        smallest = f"{row.data['smallest_drop_points']:.2f} points"
        yield row.model_copy(update={"data": {**row.data, "samples": f"{len(labels)} images", "smallest": smallest}})
    if decided is None or not known.any():
        yield rows.skipped("accuracy", named + CLASSES, why_not)
    else:
        yield per_class(decided[known, 0] == labels, right, labels, head.columns, allowed.class_points, named + CLASSES)
    yield rows.skipped("calibration", named + CALIBRATION, NO_PROBABILITIES)


def _claim(baseline: Baseline, head: Head, heads: Sequence[Head]) -> dict[str, Any]:
    claims = baseline.accuracy if is_classifier(heads) else baseline.accuracy.get("heads", {}).get(head.name)
    return dict(claims or {})


def _unpaired(claim: dict[str, Any], right: npt.NDArray[np.bool_], tolerance_points: float, name: str) -> VerdictRow:
    """Judge a share of right decisions against one of other images: both are uncertain."""
    limit = f"≤ {tolerance_points:g} points"
    percent, images = claim.get("top1_percent"), claim.get("images")
    if percent is None or not images:
        return rows.undecided("accuracy", name, "the baseline has no figures", limit)
    before = (round(percent * images / 100), images)
    drop, low, high = (100 * value for value in unpaired_drop(before, (int(right.sum()), len(right))))
    enough = len(right) >= images_needed(tolerance_points / 100)
    verdict: VerdictName = "INCONCLUSIVE"
    if low > tolerance_points:
        verdict = "BROKEN"
    elif high < tolerance_points and enough:
        verdict = "KEPT"
    reason = {
        "KEPT": "",
        "BROKEN": "the drop is larger than the tolerance, beyond what chance explains",
        "INCONCLUSIVE": "other images than the baseline's, so not image by image: what is within the tolerance cannot be told",
    }[verdict]
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=verdict,
        figure=f"{drop:+.2f} points lost [{low:+.2f}, {high:+.2f}]",
        limit=limit,
        reason=reason,
        data={
            "test": "Newcombe's hybrid score interval, unpaired",
            "tolerance_points": tolerance_points,
            "samples": f"{images} and {len(right)} images, unpaired",
            "smallest": f"{1.512 * (high - low) / 2:.2f} points",
            "drop_points": drop,
            "low_points": low,
            "high_points": high,
        },
    )


def _claimed(
    baseline: Baseline,
    logits: Logits,
    targets: npt.NDArray[np.float32],
    head: Head,
    named: str,
    allowed: Tolerances,
    heads: Sequence[Head],
) -> VerdictRow:
    """Judge several labels or values by the interval of the candidate's figure."""
    name = named + CALLED[head.kind][1]
    known = np.isfinite(targets).any(axis=1)
    claim = _claim(baseline, head, heads)
    if not claim or not known.any():
        return rows.undecided("accuracy", name, "there are no two figures to compare")
    limits = {"map_drop_points": allowed.accuracy_points, "rmse_increase_percent": allowed.rmse_percent}
    row = claimed(name, head, logits[known], targets[known], claim, limits)
    reason = row.reason.replace("the manifest says", "the baseline's figures say")
    data = {**row.data, "samples": f"{int(known.sum())} images, against a figure"}
    return row.model_copy(update={"reason": reason, "data": data})


def figure_changes(baseline: Baseline, candidate: Logits, images: Labelled, heads: Sequence[Head]) -> list[ChangedDecision]:
    """Return the decisions of single labels that changed, worst first; none where the baseline's images are others."""
    found: list[ChangedDecision] = []
    if not _same_images(baseline, images):
        return found
    from edgetune.verify.metrics import softmax

    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        first = baseline.decided(head.name)
        if first is None or head.kind == MULTI_LABEL:
            continue
        second = decisions(candidate[:, columns], head)[:, 0]
        probabilities = softmax(candidate[:, columns])
        every = np.arange(len(second))
        margins = probabilities[every, second] - probabilities[every, first[:, 0]]
        title = head.name if len(heads) > 1 else ""
        found += changed_labels(first[:, 0], second, images.targets[:, place][:, 0], images.names, head.columns, title, margins)
    return worst_first(found)
