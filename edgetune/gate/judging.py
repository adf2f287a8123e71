"""From both models' answers to verdicts, head by head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.artefacts import Head, VerdictRow
from edgetune.artefacts.comparison import Compared
from edgetune.device.decisions import decisions, thresholds_of
from edgetune.device.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, columns_of, targets_of
from edgetune.gate.measuring import Answers
from edgetune.gate.tolerances import Tolerances
from edgetune.verify import rows
from edgetune.verify.calibration import EASILY_SEEN, calibration
from edgetune.verify.classes import per_class
from edgetune.verify.limits import Limits
from edgetune.verify.pairs import Timed, cost, latency
from edgetune.verify.tasks import compared, prefix, row_names

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Targets = npt.NDArray[np.float32]

__all__ = ["NO_IMAGES", "cost_rows", "model_rows", "no_images", "on_one_scale", "sane", "size"]

CALLED = {SINGLE_LABEL: ("decisions", "top-1"), MULTI_LABEL: ("decisions", "mAP"), REGRESSION: ("values", "RMSE")}
CLASSES, CALIBRATION = "top-1 of each class", "calibration (ECE)"
NO_IMAGES = "no labelled images were given; use --data DIR"
NO_TOLERANCE = "reported, not judged; a tolerance is --set agreement_percent=95"
ANYTHING = 0.0


def no_images(heads: Sequence[Head], reason: str = NO_IMAGES) -> Iterator[VerdictRow]:
    """Yield the rows about what the models decide, none of them judged."""
    names = list(row_names(heads, CALLED))
    for number, head in enumerate(heads):
        for kind, name in names[2 * number : 2 * number + 2]:
            yield rows.skipped(kind, name, reason)
        if head.kind == SINGLE_LABEL:
            yield rows.skipped("accuracy", prefix(head, heads) + CLASSES, reason)
            yield rows.skipped("calibration", prefix(head, heads) + CALIBRATION, reason)


def sane(answers: Answers, name: str) -> VerdictRow:
    """Judge whether a model's logits are numbers and depend on the image."""
    reason = (
        f"logits of the {name} are not numbers"
        if not answers.finite
        else f"the {name} gives the same logits for every image"
        if answers.constant
        else ""
    )
    return VerdictRow(
        kind="numeric",
        name=f"{name}'s logits",
        # A baseline that says nothing is no regression of the candidate's.
        verdict="KEPT" if not reason else "BROKEN" if name == "candidate" else "INCONCLUSIVE",
        figure="finite, varying" if not reason else "constant" if answers.finite else "NaN or infinity",
        limit="numbers that vary",
        reason=reason,
        data={"samples": f"{len(answers.logits)} images"},
    )


def on_one_scale(logits: Logits, own: Sequence[Head], heads: Sequence[Head]) -> Logits:
    """Return a candidate's logits so that the baseline's thresholds decide as the candidate's own would.

    A label's logit is moved by the difference of the two thresholds' logits, which changes no order and so no precision.

    Args:
        logits: float32 `[N, C]`, with the columns of `heads`.
        own: the candidate's heads.
        heads: the baseline's.
    """
    moved = logits.copy()
    for head, its, columns in zip(heads, own, columns_of(heads), strict=True):
        if head.kind == MULTI_LABEL:
            limits = dict(zip(its.columns, thresholds_of(its), strict=True))
            theirs = np.array([limits[name] for name in head.columns])
            ours = np.array(thresholds_of(head))
            if (theirs != ours).any():
                moved[:, columns] += (_logit(ours) - _logit(theirs)).astype(np.float32)
    return moved


def _logit(probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    result: npt.NDArray[np.float64] = np.log(inside / (1 - inside))
    return result


def model_rows(
    baseline: Logits, candidate: Logits, targets: Targets, heads: Sequence[Head], allowed: Tolerances
) -> Iterator[VerdictRow]:
    """Yield the verdicts on what the models decide.

    Of each head the decisions and the accuracy; of a single label also each class and the calibration.

    Args:
        baseline: float32 `[N, C]`, all finite.
        candidate: likewise, with the columns in the same order and on one scale.
        targets: float32 `[N, T]`, NaN where not known.
        heads: the baseline's.
        allowed: what must hold.
    """
    found = compared(baseline, candidate, targets, heads, _limits(allowed), CALLED)
    parts = zip(heads, columns_of(heads), targets_of(heads), strict=True)
    for (head, columns, place), decided, accurate in zip(parts, found, found, strict=False):
        yield _agreement(decided, allowed)
        yield _with_samples(accurate)
        if head.kind != SINGLE_LABEL:
            continue
        known = np.isfinite(targets[:, place][:, 0])
        named = prefix(head, heads)
        if not known.any():
            yield rows.undecided("accuracy", named + CLASSES, "nothing is known of any image")
            yield rows.undecided("calibration", named + CALIBRATION, "nothing is known of any image")
            continue
        labels = targets[known, place][:, 0].astype(np.int64)
        first, second = baseline[known, columns], candidate[known, columns]
        right = [decisions(logits, head)[:, 0] == labels for logits in (first, second)]
        yield per_class(right[0], right[1], labels, head.columns, allowed.class_points, named + CLASSES)
        yield calibration(first, second, labels, allowed.ece_points, named + CALIBRATION)


def _limits(allowed: Tolerances) -> Limits:
    return Limits(
        parity_max_abs=ANYTHING,
        golden_max_abs=ANYTHING,
        top1_drop_points=allowed.accuracy_points,
        top1_agreement_percent=allowed.agreement_percent,
        map_drop_points=allowed.accuracy_points,
        rmse_increase_percent=allowed.rmse_percent,
    )


def _agreement(row: VerdictRow, allowed: Tolerances) -> VerdictRow:
    """Return the row of decisions with its sample; without a tolerance it is reported alone."""
    images = row.data.get("images", 0)
    data = {**row.data, "samples": f"{images} images"}
    if allowed.agreement_percent:
        return row.model_copy(update={"data": data})
    return row.model_copy(update={"verdict": "SKIPPED", "limit": "", "reason": NO_TOLERANCE, "data": data})


def _with_samples(row: VerdictRow) -> VerdictRow:
    """Return the row of accuracy with its sample and the smallest change that it could have seen."""
    data: dict[str, Any] = dict(row.data)
    changes = list(data.get("values", {}).values()) or [data]
    if "images" not in changes[0]:
        return row
    if "smallest_drop_points" in data:
        smallest = f"{data['smallest_drop_points']:.2f} points"
    else:
        unit = "%" if "values" in data else "points"
        smallest = f"{EASILY_SEEN * max(one['high'] - one['low'] for one in changes) / 2:.2f} {unit}"
    data |= {"samples": f"{max(one['images'] for one in changes)} images", "smallest": smallest}
    return row.model_copy(update={"data": data})


def cost_rows(found: Timed, allowed: Tolerances) -> Iterator[VerdictRow]:
    """Yield the verdicts on time and memory."""
    yield latency(found, allowed.latency_percent)
    yield cost(
        found,
        "cold_start_ms",
        "cold start",
        kind="latency",
        tolerance_percent=allowed.cold_start_percent,
        floor=5.0,
        scale=1.0,
        unit="ms",
    )
    yield cost(
        found,
        "peak_memory_bytes",
        "peak memory",
        kind="memory",
        tolerance_percent=allowed.memory_percent,
        floor=1.0,
        scale=1e6,
        unit="MB",
    )


def size(baseline: Compared, candidate: Compared, tolerance_percent: float) -> VerdictRow:
    """Judge whether the candidate's file is larger by no more than a tolerance."""
    percent = 100 * (candidate.size_bytes / baseline.size_bytes - 1)
    kept = percent <= tolerance_percent
    return VerdictRow(
        kind="size",
        name="size of the file",
        verdict="KEPT" if kept else "BROKEN",
        figure=f"{percent:+.1f} % ({baseline.size_bytes / 1e6:.2f} → {candidate.size_bytes / 1e6:.2f} MB)",
        limit=f"≤ +{tolerance_percent:g} %",
        reason="" if kept else "the file is larger than the tolerance allows",
        data={
            "samples": "1 file each",
            "baseline_bytes": baseline.size_bytes,
            "candidate_bytes": candidate.size_bytes,
            "tolerance_percent": tolerance_percent,
        },
    )
